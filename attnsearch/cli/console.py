"""Printing: tables and JSON on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer


def fail(message: str) -> None:
    """One line on stderr, in the program's name."""
    line = " ".join(message.split())
    typer.secho(f"attnsearch: {line}", fg="red", err=True)


def note(message: str) -> None:
    """One line of news on stderr."""
    typer.secho(message, err=True)


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

    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # Neither a narrow terminal nor a pipe, which has no width, may cut a row; lines wrap instead.
    whole = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console = Console(width=max(whole, console.width), soft_wrap=True)
    console.print(table)


@contextmanager
def progress(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with rate and time left; yields the function that advances it."""
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
