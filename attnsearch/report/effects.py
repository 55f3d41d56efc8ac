"""What ablations do to one share of images, as bars."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from attnsearch.report.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BAR: Final = 0.28
"""Height of a bar and of the gap below it, inches."""


class Range(NamedTuple):
    """Least and largest change."""

    low: float
    high: float


class Bar(NamedTuple):
    """One set of heads."""

    name: str
    change: float
    interval: Range
    controls: Range | None = None
    """Of the sets it is held against."""


def draw(bars: Sequence[Bar], title: str, what: str) -> "Figure":
    """A bar for every set, the first at the top, with its interval.

    Behind a bar that has controls a grey one shows their range; `what` names the horizontal axis.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure(7, 1.2 + _BAR * len(bars))
    axes = figure.subplots()
    for place, bar in enumerate(bars):
        if bar.controls is not None:
            low, high = bar.controls
            axes.barh(place, high - low, left=low, height=0.9, color="#d9d9d9", zorder=1)
        axes.barh(place, bar.change, height=0.5, color="#c0392b", zorder=2)
        axes.hlines(place, *bar.interval, color="#222222", linewidth=1.2, zorder=3)
    axes.axvline(0, color="#888888", linewidth=0.8, zorder=0)
    axes.set(
        title=title,
        xlabel=what,
        yticks=range(len(bars)),
        yticklabels=[bar.name for bar in bars],
        ylim=(len(bars) - 0.5, -0.5),
    )
    axes.title.set_fontsize(10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
