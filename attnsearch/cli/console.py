"""Printing: tables and JSON on stdout, everything else on stderr.

What is printed may come from files of anyone, so it is one line, or one cell, of printable letters.
"""

import json
import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import typer

from attnsearch.intake import one_line
from attnsearch.progress import note
from attnsearch.tables import Column, Table, rich_table


def fail(message: str) -> None:
    """One line on stderr, in the program's name."""
    typer.secho(f"attnsearch: {one_line(message)}", fg="red", err=True)


def print_json(value: Any) -> None:
    """A value as indented JSON on stdout."""
    json.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")


def show(
    table: Table[Any],
    *,
    top: int | None = None,
    output: Sequence[Path] = (),
    as_json: bool = False,
    silent: bool = False,
) -> None:
    """Write a whole table to files, print its first `top` rows or their JSON, and its notes.

    One that is `silent` was printed already.
    """
    for path in output:
        table.save(path)
        note(f"written: {path}")
    shown = table if top is None else table[:top]
    if as_json:
        print_json(shown.records())
    elif not silent:
        print_whole(shown.title, rich_table(shown))
    for line in table.notes:
        note(line)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str, words: Sequence[str]
) -> None:
    """A table of text on stdout; columns of words are aligned left, those of numbers right."""
    print_whole(title, rich_table(_Text(columns, rows, title, words)))


class _Text(Table[Sequence[str]]):
    """Rows of cells that are text already."""

    def __init__(
        self,
        names: Sequence[str],
        rows: Sequence[Sequence[str]],
        title: str,
        words: Sequence[str],
    ) -> None:
        super().__init__(rows, title)
        self._names, self._words = names, words

    @property
    def columns(self) -> Sequence[Column[Sequence[str]]]:
        return [
            Column(name, itemgetter(number), words=name in self._words)
            for number, name in enumerate(self._names)
        ]


def print_whole(title: str, table: Any) -> None:
    """A `rich.table.Table` on stdout, below its title.

    Neither a narrow terminal nor a pipe, which has no width, may cut a row; lines wrap instead.
    """
    from rich.console import Console
    from rich.text import Text  # of a str, [brackets] would be read as markup

    console = Console()
    whole = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console = Console(width=max(whole, console.width), soft_wrap=True)
    console.print(Text(one_line(title), style="italic"))
    console.print(table)


def human_bytes(count: float) -> str:
    """A byte count with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
