"""Which blocks of a scan exist: an append-only text file, one line a block.

A block exists if and only if its line is whole, and its line is written after its data is on the
disk. The file holds no times, so a scan interrupted anywhere ends with the same bytes as one that
was not. Nothing here knows what a block contains.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from zlib import crc32

LEDGER_NAME: Final = "ledger.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One committed block."""

    block: int
    files: Mapping[str, tuple[int, int]]
    """Path relative to the scan's group -> (size in bytes, crc32 of the bytes)."""

    def line(self) -> bytes:
        """The record as it stands in the file; `crc` is the crc32 of the line without it."""
        payload = {"block": self.block, "files": self.files}
        return _encode({**payload, "crc": crc32(_encode(payload))})


def _encode(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def parse(data: bytes) -> tuple[list[Record], int]:
    """The longest valid prefix of a ledger, and its length in bytes.

    A line counts when it is complete, is exactly what its record would write, and is in turn.
    """
    records: list[Record] = []
    length = 0
    for line in data.splitlines(keepends=True):
        record = _parse_line(line)
        if record is None or record.block != len(records):
            break
        records.append(record)
        length += len(line)
    return records, length


def _parse_line(line: bytes) -> Record | None:
    try:
        values = json.loads(line)
        files = {name: (int(size), int(crc)) for name, (size, crc) in values["files"].items()}
        record = Record(block=int(values["block"]), files=files)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return record if record.line() == line else None


@dataclass(slots=True)
class Ledger:
    """A ledger file, whose invalid tail, if any, is ignored and overwritten."""

    path: Path
    records: list[Record] = field(default_factory=list)
    length: int = 0
    """Bytes of the valid prefix."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """The ledger in the file at `path`.

        Raises:
            OSError: the file cannot be read.
        """
        return cls(path, *parse(path.read_bytes()))

    def trim(self) -> None:
        """Cut what follows the valid prefix off the file."""
        if self.path.stat().st_size > self.length:
            os.truncate(self.path, self.length)

    def append(self, record: Record) -> None:
        """Make `record` durable; what follows the valid prefix is lost.

        Raises:
            OSError: the record may be torn; the ledger is as before and append can be repeated.
        """
        line = record.line()
        with self.path.open("r+b") as file:
            file.seek(self.length)
            file.truncate()
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.length += len(line)
        self.records.append(record)

    def first_damage(self) -> str | None:
        """What is wrong with the first recorded file that is absent or of another size."""
        for record in self.records:
            for name, (size, _) in record.files.items():
                file = self.path.parent / name
                if not file.is_file():
                    return f"{name} is missing"
                if (found := file.stat().st_size) != size:
                    return f"{name} has {found} bytes, not {size}"
        return None
