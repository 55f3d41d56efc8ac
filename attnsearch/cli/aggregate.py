"""`attnsearch aggregate`."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnsearch.axes import Branch
from attnsearch.cli import options
from attnsearch.cli.console import blocks_of, note, note_left_out, print_json, print_table
from attnsearch.cli.running import opened_aggregator
from attnsearch.errors import ConfigError
from attnsearch.lookup import find_store

if TYPE_CHECKING:
    import xarray as xr

    from attnsearch.aggregate import Aggregator, Quantity, Statistic
    from attnsearch.aggregate.table import Table


def aggregate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[STORE] WHAT",
            help="An array, roles (role+role), or a template (region -> role); before it the "
            "store, default: $ATTNSEARCH_STORE, or attnsearch.zarr here.",
        ),
    ],
    keep: Annotated[
        str | None,
        typer.Option(help="Axes that remain, by commas; default: all but sample and step."),
    ] = None,
    branch: Annotated[Branch, typer.Option(help="Which half of the guidance.")] = Branch.COND,
    quantiles: Annotated[
        str | None, typer.Option(help="Such as 0.1,0.5,0.9; of what has bounds.")
    ] = None,
    scan: options.Scan = None,
    top: options.Top = 20,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write all rows to this .parquet file instead.", callback=options.writable
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take as JSON; read nothing.")
    ] = False,
    scheduler: options.Scheduler = "threads",
    as_json: options.Json = False,
) -> None:
    """Count, mean, deviation, minimum and maximum of anything stored, over all maps.

    WHAT is an array of the store (entropy, peak, energy, score_shape ...), roles, of whose
    attention every coefficient of the basis is reduced, or a template, of which attention summed
    over the region (total) and per unit of region (share) are.

    Axes: step, layer, head, and what samples have: prompt, relation, colour1, seed ...; of roles
    also basis, of templates measure. Every axis that is not kept is reduced.

    What was read once is kept in the store, and read again only where a scan has grown. Large
    stores: --dry-run first, then --scheduler.

    Example: attnsearch aggregate entropy --keep relation,layer,head

    Example: attnsearch aggregate maps.zarr relation --keep relation,step,layer,head,basis
    --output relation.parquet
    """
    named, quantity = options.store_and_question(words, "aggregate", "entropy")
    shares = _numbers(quantiles)
    store = str(find_store(named))
    from attnsearch.aggregate import Extremes, Histogram, Moments
    from attnsearch.aggregate.table import check_parquet, table_of, write_parquet
    from attnsearch.metrics.naming import bounds_of, quantity_called, usual_axes
    from attnsearch.store import open_scans

    if output is not None:
        check_parquet(output)
    scans = open_scans(store, scan, left_out=note_left_out)
    asked: dict[str, tuple[Quantity, tuple[str, ...], tuple[Statistic, ...]]] = {}
    histograms: dict[str, Histogram] = {}
    for name, opened in scans.items():
        what = quantity_called(quantity, opened, branch)
        axes = usual_axes(what.of(opened)) if keep is None else tuple(_names(keep))
        if shares:
            low, high = bounds_of(what, opened)
            histograms[name] = Histogram(low=low, high=high)
        more = [histograms[name]] if shares else []
        asked[name] = what, axes, (Moments(), Extremes(), *more)
    with opened_aggregator(scheduler) as aggregator:
        if dry_run:
            print_json({name: _plan(aggregator, scans[name], *asked[name]) for name in scans})
            return
        found = {name: aggregator(scans[name], *asked[name]) for name in scans}
    for name, histogram in histograms.items():
        counts = found[name]["histogram"]
        for share in shares:
            values = histogram.quantile(counts.to_numpy(), share)
            found[name][f"quantile_{share:g}"] = (counts.dims[:-1], values)
    table = table_of(found)
    note_left_out(scans)
    if output is not None:
        from importlib.metadata import version

        facts = {"quantity": quantity, "branch": str(branch), "attnsearch": version("attnsearch")}
        write_parquet(output, table, facts)
        note(f"{len(table['count']):,} rows in {output}")
    elif as_json:
        print_json([row | blocks_of([scans[row["model"]]]) for row in _records(table)])
    else:
        _print(table, top, f"{quantity} in {options.store_name(store)}")


def _plan(
    aggregator: "Aggregator",
    scan: "xr.Dataset",
    quantity: "Quantity",
    keep: tuple[str, ...],
    statistics: "tuple[Statistic, ...]",
) -> dict[str, Any]:
    plan = aggregator.plan(scan, quantity, keep, statistics)
    workers = os.cpu_count() or 1
    return {**asdict(plan), "workers": workers, "memory": plan.memory(workers)}


def _print(table: "Table", top: int, title: str) -> None:
    """The rows of the largest means."""
    import numpy as np

    shown = {name: column for name, column in table.items() if name != "variance"}
    if len(np.unique(shown["model"].astype(str))) == 1:
        del shown["model"]
    order = np.argsort(-table["mean"], kind="stable")[:top]
    columns = ["deviation" if name == "variance" else name for name in table if name in shown]
    columns.insert(columns.index("mean") + 1, "deviation")
    shown["deviation"] = np.sqrt(table["variance"])
    words = [name for name in columns if shown[name].dtype.kind in "OTU"]
    print_table(
        columns,
        [[_cell(shown[name][row]) for name in columns] for row in order],
        title=title,
        words=words,
    )
    if (rows := len(table["count"])) > top:
        note(f"the {top} largest means of {rows:,} rows; --output and --json keep all")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)  # float64 is one


def _records(table: "Table") -> list[dict[str, Any]]:
    """Rows as JSON can hold them."""
    columns = {
        name: [None if each != each else each for each in column.tolist()]
        for name, column in table.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _numbers(text: str | None) -> list[float]:
    try:
        numbers = [float(part) for part in _names(text or "")]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number <= 1 for number in numbers):
        raise ConfigError(f"quantiles are numbers from 0 to 1 such as 0.1,0.5,0.9, not {text}")
    return numbers
