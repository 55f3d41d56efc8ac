"""Scores of heads as grids, layers by heads."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from attnsearch.axes import HeadAddress
from attnsearch.report.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL: Final = 0.5
"""Side of a cell, inches."""
_COLOURS: Final = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
"""Anchors from -1 over 0 to 1."""


def colour_of(strength: float) -> tuple[int, int, int]:
    """The colour of a score in [-1, 1]: blue below zero, red above."""
    position = (min(1.0, max(-1.0, strength)) + 1) / 2 * (len(_COLOURS) - 1)
    left = min(int(position), len(_COLOURS) - 2)
    share = position - left
    red, green, blue = (
        round(a + share * (b - a)) for a, b in zip(_COLOURS[left], _COLOURS[left + 1], strict=True)
    )
    return red, green, blue


def letters_on(colour: tuple[int, int, int]) -> str:
    """The colour of letters that can be read on another."""
    return "black" if sum(colour) > 384 else "white"


def draw(grids: Mapping[str, Mapping[HeadAddress, float]], title: str) -> "Figure":
    """One figure with a grid for every name; colours are relative to the largest score of all.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    largest = max((abs(score) for grid in grids.values() for score in grid.values()), default=1.0)
    layers = {name: sorted({head.layer for head in grid}) for name, grid in grids.items()}
    heads = {name: sorted({head.head for head in grid}) for name, grid in grids.items()}
    rows = [len(each) for each in layers.values()] or [1]
    widest = max((len(each) for each in heads.values()), default=1)
    figure = new_figure(max(4.0, 1 + _CELL * widest), 0.6 + sum(0.7 + _CELL * n for n in rows))
    figure.suptitle(title, fontsize=10)
    places = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[1 + n for n in rows])
    for place, (name, grid) in zip(places[:, 0], grids.items(), strict=True):
        _grid(place, name, grid, layers[name], heads[name], largest or 1.0)
    return figure


def _grid(
    place: Any,
    name: str,
    grid: Mapping[HeadAddress, float],
    layers: list[int],
    heads: list[int],
    largest: float,
) -> None:
    for head, score in grid.items():
        at = heads.index(head.head), layers.index(head.layer)
        colour = colour_of(score / largest)
        place.add_patch(_square(at, colour))
        place.text(
            *at, f"{score:+.2f}", ha="center", va="center", fontsize=7, color=letters_on(colour)
        )
    place.set(
        title=name,
        xlim=(-0.5, len(heads) - 0.5),
        ylim=(len(layers) - 0.5, -0.5),
        aspect="equal",
        xticks=range(len(heads)),
        xticklabels=[f"H{head}" for head in heads],
        yticks=range(len(layers)),
        yticklabels=[f"L{layer}" for layer in layers],
    )
    place.title.set_fontsize(9)
    place.tick_params(
        length=0, labelsize=8, top=True, labeltop=True, bottom=False, labelbottom=False
    )
    place.spines[:].set_visible(False)


def _square(at: tuple[int, int], colour: tuple[int, int, int]) -> Any:
    from matplotlib.patches import Rectangle

    x, y = at
    shade = tuple(channel / 255 for channel in colour)
    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=shade)
