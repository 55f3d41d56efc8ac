"""What a head looks at: its mean map, by relation and step."""

from typing import TYPE_CHECKING, Final

import xarray as xr

from attnsearch.axes import STEP
from attnsearch.report.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL: Final = 0.62
"""Side of a map in the picture, inches."""


def draw(maps: xr.DataArray, title: str) -> "Figure":
    """A row per relation, a column per step; `maps` [relation, step, y, x].

    Brightness is attention, from 0 to the largest of the picture.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    rows, steps = maps.shape[:2]
    figure = new_figure(1.9 + _CELL * steps, 0.8 + _CELL * rows)
    figure.suptitle(title, fontsize=10)
    places = figure.subplots(rows, steps, squeeze=False)
    brightest = float(maps.max()) or 1.0  # a head that never looks at these words stays dark
    for row, relation in zip(range(rows), maps["relation"].to_numpy(), strict=True):
        for column, place in enumerate(places[row]):
            shown = place.imshow(maps.values[row, column], cmap="inferno", vmin=0, vmax=brightest)
            place.set(xticks=[], yticks=[])
            place.spines[:].set_visible(False)
        label = str(relation).replace("_", " ") or "all prompts"
        places[row, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    for place, step in zip(places[0], maps[STEP].to_numpy(), strict=True):
        place.set_title(f"step {step}" if not step else str(step), fontsize=8)
    figure.colorbar(shown, ax=places, shrink=0.8, label="attention")
    return figure
