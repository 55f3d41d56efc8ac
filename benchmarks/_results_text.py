"""Paragraphs, tables and figures of docs/results.md."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from attnsearch.axes import HeadAddress


def paragraph(*pieces: str) -> list[str]:
    return [*wrap(" ".join(pieces), 100, break_long_words=False, break_on_hyphens=False), ""]


def address(head: dict[str, Any]) -> str:
    return str(HeadAddress(head["layer"], head["head"]))


def share(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"
