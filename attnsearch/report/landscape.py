"""The plane of all heads as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from attnsearch.report.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN: Final = 8
"""Families that get a colour."""


def draw(
    plane: xr.Dataset, families: Sequence[tuple[str, Sequence[int]]], kinds: list[str]
) -> "Figure":
    """Every head three times: by family, by the kind of its model, and by relative depth.

    `plane` is of `clustering.landscape`; `families` has names and rows of members, `kinds` a word
    for every head.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure(16, 5.6)
    from matplotlib import colormaps  # there, now that there is a figure

    by_family, by_kind, by_depth = figure.subplots(1, 3, sharex=True, sharey=True)
    x, y = plane["x"].to_numpy(), plane["y"].to_numpy()
    _dots(by_family, x, y, color="#dddddd", label="in no family")
    for colour, (name, members) in zip(
        colormaps["tab10"](range(_SHOWN)), families[:_SHOWN], strict=False
    ):
        _dots(by_family, x[list(members)], y[list(members)], color=tuple(colour), label=name)
    words = np.array(kinds)
    for colour, kind in zip(colormaps["Set2"](range(_SHOWN)), np.unique(words), strict=False):
        _dots(by_kind, x[words == kind], y[words == kind], color=tuple(colour), label=str(kind))
    depth = plane["layer"].groupby(plane["model"]).map(lambda own: own / max(1, own.max()))
    shown = _dots(by_depth, x, y, c=depth.to_numpy(), cmap="viridis")
    figure.colorbar(shown, ax=by_depth, label="depth: first layer 0, last layer 1")
    titles = ("family", "encoder", "depth")
    for axes, title in zip((by_family, by_kind, by_depth), titles, strict=True):
        axes.set_title(f"heads by {title}")
        axes.set_xlabel(f"first principal component ({plane.attrs['shares'][0]:.0%} of variance)")
    by_family.set_ylabel(f"second ({plane.attrs['shares'][1]:.0%})")
    by_family.legend(fontsize=7)
    by_kind.legend(fontsize=7)
    return figure


def _dots(axes: Any, x: Any, y: Any, **how: Any) -> Any:
    return axes.scatter(x, y, s=18, linewidths=0, **how)
