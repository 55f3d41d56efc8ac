"""Printing: tables and JSON on stdout, everything else on stderr.

What is printed may come from files of anyone, so it is one line, or one cell, of printable letters.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from attnsearch.intake import one_line

if TYPE_CHECKING:
    import xarray as xr


def fail(message: str) -> None:
    """One line on stderr, in the program's name."""
    typer.secho(f"attnsearch: {one_line(message)}", fg="red", err=True)


def note(message: str) -> None:
    """One line of news on stderr."""
    typer.secho(one_line(message), err=True)


def blocks_of(scans: Iterable["xr.Dataset"]) -> dict[str, int]:
    """Blocks that scans are to have and those that are done, as every row of JSON says them."""
    sums = {"blocks": 0, "blocks_done": 0}
    for scan in scans:
        for name in sums:
            sums[name] += scan.attrs[name]
    return sums


def note_left_out(scans: Mapping[str, "xr.Dataset"]) -> None:
    """News of what is left out of everything: blocks not done yet, samples that are not finite."""
    for name, scan in scans.items():
        blocks = blocks_of([scan])
        if blocks["blocks_done"] < blocks["blocks"]:
            note(
                f"{name}: {blocks['blocks_done']} of {blocks['blocks']} blocks; "
                "the scan is not complete"
            )
        if flagged := scan.attrs.get("flagged_samples", 0):
            sampled = flagged + scan.sizes["sample"]
            note(f"{name}: {flagged} of {sampled} samples were not finite and are left out")


def print_json(value: Any) -> None:
    """A value as indented JSON on stdout."""
    json.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str, words: Sequence[str]
) -> None:
    """A table on stdout; the columns of words are aligned left, those of numbers right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # of a str, [brackets] would be read as markup

    named = Text(one_line(title))
    table = Table(title=named, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console = Console()
    # Neither a narrow terminal nor a pipe, which has no width, may cut a row; lines wrap instead.
    whole = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console = Console(width=max(whole, console.width), soft_wrap=True)
    console.print(table)


@contextmanager
def progress(
    description: str, total: int, unit: str, *, lasting: bool = True
) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with rate and time left; yields the function that advances it.

    One that is not `lasting` is gone when it is full.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=not lasting,
        disable=not console.is_terminal,  # a log file has no use for a bar
    )
    with bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            if speed is not None:
                bar.update(task, rate=f"{speed:,.0f} {unit}/s")

        yield advance


def human_bytes(count: float) -> str:
    """A byte count with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
