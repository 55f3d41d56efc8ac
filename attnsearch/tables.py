"""Results as tables, which print, show in notebooks, and are written to files by suffix."""

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, overload

from attnsearch.cleanup import placed
from attnsearch.errors import ConfigError
from attnsearch.intake import one_line

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

DATA_SUFFIXES: Final = (".csv", ".json", ".parquet", ".html")
PICTURE_SUFFIXES: Final = (".png", ".svg", ".pdf")
SUFFIXES: Final = (*DATA_SUFFIXES, *PICTURE_SUFFIXES)
_SHOWN: Final = 20
"""Rows that are shown where nobody said how many."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column as it is shown."""

    name: str
    cell: Callable[[Row], str]
    words: bool = False
    """Whether it holds words, which are aligned left; numbers are aligned right."""


class Table(Sequence[Row], ABC):
    """Rows of one kind, best or largest first; indexed and sliced as a list.

    `title` says what the rows are, `notes` what a reader must know beside them, such as that a scan
    is not complete.
    """

    title: str
    notes: tuple[str, ...]

    def __init__(self, rows: Sequence[Row], title: str, notes: Sequence[str] = ()) -> None:
        self._rows, self.title, self.notes = rows, title, tuple(notes)

    @property
    @abstractmethod
    def columns(self) -> Sequence[Column[Row]]:
        """The columns as they are shown; `records` has all there is."""

    def record(self, row: Row) -> dict[str, Any]:
        """The fields of a row by name, as plain values."""
        return asdict(row)  # type: ignore[call-overload]

    def figure(self) -> "Figure":
        """The rows as a matplotlib figure.

        Raises:
            ConfigError: this kind of table has no picture, or matplotlib is not installed.
        """
        raise ConfigError(f"{self.title}: there is no picture of it; write a table instead")

    def records(self) -> list[dict[str, Any]]:
        """A dictionary of plain values for every row, as JSON has them."""
        return [self.record(row) for row in self._rows]

    def to_pandas(self) -> "pd.DataFrame":
        """A column for every field of a row."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def to_xarray(self) -> "xr.Dataset":
        """A variable for every field of a row, along the dimension `row`."""
        return self.to_pandas().rename_axis("row").to_xarray()

    def save(self, path: Path | str) -> Path:
        """Write a file in the form of its suffix, whole or not at all; returns its path.

        .csv, .json, .parquet and .html hold all rows, .png, .svg and .pdf the `figure`.

        Raises:
            ConfigError: the suffix is another, a package for it is missing, or the file cannot be
                written.
        """
        target = check_output(Path(path))
        return write_whole(target, partial(_WRITERS[target.suffix], self))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> "Row | Self":
        if isinstance(index, int):
            return self._rows[index]
        part = copy(self)
        part._rows = self._rows[index]
        return part

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=1000, force_jupyter=False).print(rich_table(self[:_SHOWN]))
        lines = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([one_line(self.title), *lines, *self._rest(), *self.notes])

    def _repr_html_(self) -> str:
        """The first rows, as a notebook shows them."""
        return _html(self[:_SHOWN], self._rest())

    def _rest(self) -> list[str]:
        more = len(self) - _SHOWN
        return [f"... and {more:,} more rows"] if more > 0 else []


def check_output(path: Path, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """Find out before anything is computed that a file cannot be written; returns its path.

    Raises:
        ConfigError: its folder is not there, its suffix is none of `suffixes`, or a package for it
            is missing.
    """
    if path.suffix not in suffixes:
        *most, last = suffixes
        raise ConfigError(f"{path} must end in {', '.join(most)} or {last}")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a folder")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ConfigError('Parquet files need pyarrow: pip install "attnsearch[parquet]"')
    if path.suffix in PICTURE_SUFFIXES and find_spec("matplotlib") is None:
        raise ConfigError('pictures need matplotlib: pip install "attnsearch[report]"')
    return path


def write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Have `write` make a file that takes the place of `path` when it is whole; returns `path`.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with placed(path, path.with_name(f".{path.name}.unfinished")) as unfinished:
            write(unfinished)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def write_json(value: Any, path: Path) -> None:
    """A value as indented JSON in a file."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def write_figure(figure: "Figure", path: Path) -> None:
    """A figure in the form of the suffix before `.unfinished`, see `write_whole`."""
    # The suffix of an unfinished file says nothing.
    suffix = path.name.removesuffix(".unfinished").rpartition(".")[2]
    figure.savefig(path, format=suffix)


def rich_table(table: Table[Any]) -> Any:
    """A `rich.table.Table` of all rows, without the title, which a narrow table would break."""
    from rich.table import Table as RichTable
    from rich.text import Text  # of a str, [brackets] would be read as markup

    shown = RichTable(box=None, header_style="bold")
    columns = table.columns
    for column in columns:
        shown.add_column(column.name, justify="left" if column.words else "right", no_wrap=True)
    for row in table:
        shown.add_row(*(Text(one_line(column.cell(row))) for column in columns))
    return shown


def _html(table: Table[Any], rest: Sequence[str] = ()) -> str:
    columns = table.columns
    style = {True: "text-align: left", False: "text-align: right"}
    head = "".join(f'<th style="{style[c.words]}">{escape(c.name)}</th>' for c in columns)
    body = "\n".join(
        "<tr>"
        + "".join(_html_cell(column, row, style[column.words]) for column in columns)
        + "</tr>"
        for row in table
    )
    notes = "".join(f"<p>{escape(one_line(line))}</p>\n" for line in (*rest, *table.notes))
    return (
        f"<table>\n<caption>{escape(one_line(table.title))}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n{notes}"
    )


def _html_cell(column: Column[Any], row: Any, style: str) -> str:
    return f'<td style="{style}">{escape(one_line(column.cell(row)))}</td>'


def _write_csv(table: Table[Any], path: Path) -> None:
    records = table.records()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(
            {name: _csv_cell(value) for name, value in record.items()} for record in records
        )


def _csv_cell(value: Any) -> Any:
    """Sequences of numbers with spaces between them, what is named inside a cell as JSON."""
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return value


def _write_json(table: Table[Any], path: Path) -> None:
    write_json(table.records(), path)


def _write_parquet(table: Table[Any], path: Path) -> None:
    from importlib.metadata import version

    import pyarrow as pa
    from pyarrow import parquet

    facts = {"title": table.title, "attnsearch": version("attnsearch")}
    rows = pa.Table.from_pandas(table.to_pandas(), preserve_index=False)
    parquet.write_table(rows.replace_schema_metadata(facts), path)


def _write_html(table: Table[Any], path: Path) -> None:
    title = escape(one_line(table.title))
    path.write_text(
        f'<!doctype html>\n<meta charset="utf-8">\n<title>{title}</title>\n{_html(table)}',
        encoding="utf-8",
    )


def _write_picture(table: Table[Any], path: Path) -> None:
    write_figure(table.figure(), path)


_WRITERS: Final[Mapping[str, Callable[[Table[Any], Path], None]]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".parquet": _write_parquet,
    ".html": _write_html,
    **dict.fromkeys(PICTURE_SUFFIXES, _write_picture),
}
