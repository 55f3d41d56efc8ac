"""Where on the canvas heads would look for each relation, read from their weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attnsearch.axes import RELATIONS, HeadAddress
from attnsearch.circuits.qk import Floats
from attnsearch.report.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(maps: Floats, grid: tuple[int, int], heads: Sequence[HeadAddress]) -> "Figure":
    """A row for each head, a column for each relation; red where the logit is above the mean.

    `maps` [layer, head, relation, image token] in logits, less their mean over relations. Every row
    has a scale of its own.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure(1.2 * len(RELATIONS) + 1.2, 1.3 * len(heads) + 0.5)
    axes = figure.subplots(len(heads), len(RELATIONS), squeeze=False)
    for place, name in zip(axes[0], RELATIONS, strict=True):
        place.set_title(name.replace("_", " "), fontsize=9)
    for row, head in zip(axes, heads, strict=True):
        own = maps[head.layer, head.head]
        own = own - own.mean(axis=-1, keepdims=True)
        reach = float(np.abs(own).max()) or 1.0  # a head without any map stays white
        for place, map_ in zip(row, own, strict=True):
            shown = place.imshow(map_.reshape(grid), cmap="RdBu_r", vmin=-reach, vmax=reach)
            place.set_xticks([])
            place.set_yticks([])
        row[0].set_ylabel(str(head), fontsize=10)
        figure.colorbar(shown, ax=list(row), shrink=0.8, label="logits")
    return figure
