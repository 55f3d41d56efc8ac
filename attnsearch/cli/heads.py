"""Heads in order, as `rank` and `ask` print and write them."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from attnsearch.cli import options
from attnsearch.cli.console import blocks_of, note, note_left_out, print_json, print_table
from attnsearch.cli.running import opened_aggregator
from attnsearch.errors import ConfigError, MetricError

if TYPE_CHECKING:
    import xarray as xr

    from attnsearch.metrics import Control, Question, RankedHead, View


def _over(over: str) -> str:
    if over not in ("mean", "peak"):
        raise MetricError(f"--over is mean or peak, not {over!r}")
    return over


def _noise(text: str | None) -> str | None:
    if text is not None:
        _levels(text)
    return text


def _levels(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise MetricError(f"--noise is a range such as 0.6:1.0, not {text!r}") from None


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
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Also write all rows (.csv), or layers by heads (.png).",
        callback=options.writable,
    ),
]
Grid = Annotated[bool, typer.Option("--map", help="Print scores as layers by heads, coloured.")]

_BARS: Final = "▁▂▃▄▅▆▇█"
_SUFFIXES: Final = (".csv", ".png")


def view_of(over: str, noise: str | None, where: str | None, by: str | None) -> "View":
    """What the options say.

    Raises:
        MetricError: the noise levels are no range.
    """
    from attnsearch.metrics import View

    levels = None if noise is None else _levels(noise)
    return View(over="mean" if over == "mean" else "peak", noise=levels, where=where, by=by)


def score_store(
    store: str, scan: str | None, asked: "Question", view: "View", scheduler: str
) -> "tuple[list[RankedHead], Control | None, dict[str, xr.Dataset]]":
    """The heads of a store, best first, what controls beside them score, and the scans."""
    from attnsearch import metrics
    from attnsearch.store import open_scans

    scans = open_scans(store, scan, left_out=note_left_out)
    with opened_aggregator(scheduler) as aggregate:
        ranking = metrics.rank(scans, asked, aggregate, view)
        control = metrics.control(scans, asked, aggregate, view)
    note_left_out(scans)
    return ranking, control, scans


def check_output(output: Path | None) -> None:
    """Refuse a file of a kind that is not written, before anything is read."""
    if output is not None and output.suffix not in _SUFFIXES:
        raise ConfigError(f"{output} is written as {' or '.join(_SUFFIXES)}")


def show(
    ranking: "Sequence[RankedHead]",
    control: "Control | None",
    scans: "dict[str, xr.Dataset]",
    *,
    title: str,
    view: "View",
    top: int,
    output: Path | None,
    as_map: bool,
    as_json: bool,
) -> None:
    """Print heads as the options say, and write them."""
    if output is not None:
        _write(output, ranking, title)
    if as_json:
        print_json([asdict(row) | blocks_of([scans[row.model]]) for row in ranking[:top]])
    elif as_map:
        _print_maps(ranking)
    else:
        _print_rows(ranking[:top], f"{title}, {view}")
    if ranking[0].p_value is None:
        note("no null shuffles anything here; intervals only")
    sizes = sorted(abs(row.score) for row in ranking)
    note(f"the typical head of these {len(sizes)}: {sizes[len(sizes) // 2]:.3f}, by size")
    if control is not None:
        note(
            f"random weights: median {control.median:.3f}, largest {control.largest:.3f} "
            f"of {control.heads} heads, by size"
        )


def _print_rows(rows: "Sequence[RankedHead]", title: str) -> None:
    tested = rows[0].p_value is not None
    grouped = rows[0].group is not None
    signed = any(row.score < 0 for row in rows) or tested
    columns = ["rank", "model", *(["group"] if grouped else []), "head", "score", "95 % interval"]
    columns += ["p", "q", "family p"] if tested else []
    columns += ["peak step", "over steps", "prompts"]
    plus = "+" if signed else ""
    cells = []
    for row in rows:
        cells.append(
            [
                str(row.rank),
                row.model,
                *([str(row.group)] if grouped else []),
                str(row.address),
                f"{row.score:{plus}.3f}",
                _interval(row.ci_low, row.ci_high, plus),
                *([_p(row.p_value), _p(row.q_value), _p(row.p_family)] if tested else []),
                str(row.peak_step),
                sparkline(row.profile),
                str(row.prompts),
            ]
        )
    print_table(columns, cells, title=title, words=["model", "group", "over steps"])


def _interval(low: float | None, high: float | None, plus: str) -> str:
    return "" if low is None or high is None else f"{low:{plus}.3f} to {high:{plus}.3f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def sparkline(values: Sequence[float]) -> str:
    """Sizes of values as bars, of which the highest is the largest."""
    largest = max(map(abs, values)) or 1.0
    return "".join(_BARS[round(abs(value) / largest * (len(_BARS) - 1))] for value in values)


def _print_maps(ranking: "Sequence[RankedHead]") -> None:
    """Layers by heads, a grid for every model and group."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from attnsearch.intake import one_line

    largest = max(abs(row.score) for row in ranking) or 1.0
    for name, rows in _grids(ranking).items():
        table = Table(title=Text(one_line(name)), title_justify="left", box=None)
        table.add_column("")
        layers, heads = (sorted({getattr(row, axis) for row in rows}) for axis in ("layer", "head"))
        for head in heads:
            table.add_column(f"H{head}", justify="right", min_width=6)
        found = {(row.layer, row.head): row.score for row in rows}
        for layer in layers:
            cells = [_coloured_cell(found[layer, head], largest) for head in heads]
            table.add_row(f"L{layer}", *cells)
        Console(width=max(80, 8 * len(heads) + 8), soft_wrap=True).print(table)


def _coloured_cell(score: float, largest: float) -> Any:
    from rich.text import Text

    from attnsearch.report.head_grid import colour_of, letters_on

    colour = colour_of(score / largest)
    red, green, blue = colour
    return Text(f"{score:+.2f}", style=f"{letters_on(colour)} on rgb({red},{green},{blue})")


def _grids(ranking: "Sequence[RankedHead]") -> "dict[str, list[RankedHead]]":
    grids: dict[str, list[RankedHead]] = {}
    for row in ranking:
        name = row.model if row.group is None else f"{row.model}, {row.group}"
        grids.setdefault(name, []).append(row)
    return grids


def _write(output: Path, ranking: "Sequence[RankedHead]", title: str) -> None:
    if output.suffix == ".png":
        from attnsearch.report import head_grid

        grids = {
            name: {row.address: row.score for row in rows} for name, rows in _grids(ranking).items()
        }
        head_grid.write(output, grids, title)
    else:
        _write_csv(output, ranking)
    note(f"{len(ranking):,} heads in {output}")


def _write_csv(output: Path, ranking: "Sequence[RankedHead]") -> None:
    rows = [asdict(row) for row in ranking]
    for row in rows:
        row["profile"] = " ".join(f"{value:.6g}" for value in row["profile"])
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror or error}") from error
