"""Options of `rank` and `ask`, and heads as layers by heads on a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnsearch.errors import MetricError

if TYPE_CHECKING:
    from attnsearch.axes import HeadAddress
    from attnsearch.metrics.inference import Over as Over_


def _over(over: str) -> str:
    if over not in ("mean", "peak"):
        raise MetricError(f"--over is mean or peak, not {over!r}")
    return over


def _noise(text: str | None) -> str | None:
    levels_of(text)
    return text


def over_of(text: str) -> "Over_":
    """What the option says, which was checked while parsing."""
    return "mean" if text == "mean" else "peak"


def levels_of(text: str | None) -> tuple[float, float] | None:
    """The noise levels of `0.6:1.0`.

    Raises:
        MetricError: it is no range.
    """
    if text is None:
        return None
    low, _, high = text.partition(":")
    try:
        levels = float(low), float(high)
    except ValueError:
        raise MetricError(f"--noise is a range such as 0.6:1.0, not {text!r}") from None
    if not levels[0] <= levels[1]:
        raise MetricError(f"--noise is a range such as 0.6:1.0, lowest first, not {text}")
    return levels


Over = Annotated[
    str,
    typer.Option(
        help="mean: of the mean map over steps. peak: where it is largest.", callback=_over
    ),
]
Noise = Annotated[
    str | None,
    typer.Option(
        help="Only steps with noise levels such as 0.6:1.0, ends included.", callback=_noise
    ),
]
Where = Annotated[
    str | None,
    typer.Option(help="Only samples such as 'relation in [left, right] and colour1 == red'."),
]
By = Annotated[
    str | None, typer.Option(help="Score anew for every value of this, such as relation.")
]
Grid = Annotated[bool, typer.Option("--map", help="Print scores as layers by heads, coloured.")]


def print_grids(grids: "Mapping[str, Mapping[HeadAddress, float]]") -> None:
    """Scores as layers by heads, a coloured grid for every name."""
    from rich.table import Table

    from attnsearch.cli.console import print_whole

    largest = max(abs(score) for grid in grids.values() for score in grid.values()) or 1.0
    for name, grid in grids.items():
        table = Table(box=None)
        table.add_column("")
        layers, heads = sorted({at.layer for at in grid}), sorted({at.head for at in grid})
        for head in heads:
            table.add_column(f"H{head}", justify="right", min_width=6)
        scores = {(at.layer, at.head): score for at, score in grid.items()}
        for layer in layers:
            table.add_row(f"L{layer}", *(_cell(scores[layer, head], largest) for head in heads))
        print_whole(name, table)


def _cell(score: float, largest: float) -> Any:
    from rich.text import Text

    from attnsearch.report.head_grid import colour_of, letters_on

    colour = colour_of(score / largest)
    red, green, blue = colour
    return Text(f"{score:+.2f}", style=f"{letters_on(colour)} on rgb({red},{green},{blue})")
