"""What a scan holds for certain: one checksummed record a block, and one of what never changes.

A block exists if and only if its record is whole and belongs to the scan. A record is a file of
one line, `ledger/<block>.json`, made when all files of the block last; when a scan is complete,
its records are packed into `ledger/blocks.jsonl`. Nothing in a record depends on time, so a scan
interrupted anywhere ends with the bytes of one that was not.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple, Self
from zlib import crc32

from attnsearch.store.schema import ScanLayout
from attnsearch.store.storage import Claim, Storage

FIXED: Final = "ledger/fixed.json"
PACKED: Final = "ledger/blocks.jsonl"

_SINGLE: Final = re.compile(r"(0|[1-9]\d{0,15})\.json")


class FileMark(NamedTuple):
    """How the bytes of a file are known again."""

    size: int
    crc: int
    """CRC-32."""

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The mark of some bytes."""
        return cls(len(data), crc32(data))


Marks = Mapping[str, FileMark]
"""By name, relative to the scan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedRecord:
    """What never changes in a scan: its metadata and its coordinates."""

    files: Marks

    @property
    def fingerprint(self) -> int:
        """What the records of the scan's blocks refer to it by: the CRC-32 of its line."""
        return crc32(self.line())

    def line(self) -> bytes:
        """The record as it is written; `crc` is the CRC-32 of the line without that field."""
        return _with_checksum({"files": self.files})


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRecord:
    """One block."""

    block: int
    scan: int
    """Fingerprint of the scan it belongs to."""
    flagged: tuple[int, ...]
    """Rows of the block that are flagged, ascending."""
    files: Marks

    def line(self) -> bytes:
        """The record as it is written; `crc` is the CRC-32 of the line without that field."""
        return _with_checksum(
            {"block": self.block, "scan": self.scan, "flagged": self.flagged, "files": self.files}
        )


def marks_of(files: Mapping[str, bytes]) -> Marks:
    """How some files are known again."""
    return {name: FileMark.of(data) for name, data in files.items()}


def parse_fixed(line: bytes) -> FixedRecord | None:
    """The record of a line that is exactly what its record would write; else None."""
    values = _values(line)
    try:
        record = FixedRecord(files=_marks(values))
    except _NOT_A_RECORD:
        return None
    return record if record.line() == line else None


def parse_block(line: bytes) -> BlockRecord | None:
    """The record of a line that is exactly what its record would write; else None."""
    values = _values(line)
    try:
        record = BlockRecord(
            block=int(values["block"]),
            scan=int(values["scan"]),
            flagged=tuple(int(row) for row in values["flagged"]),
            files=_marks(values),
        )
    except _NOT_A_RECORD:
        return None
    return record if record.line() == line else None


_NOT_A_RECORD: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def _values(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _marks(values: Any) -> Marks:
    return {name: FileMark(int(size), int(crc)) for name, (size, crc) in values["files"].items()}


def _with_checksum(values: Mapping[str, object]) -> bytes:
    return _encode({**values, "crc": crc32(_encode(values))})


def _encode(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def read_fixed(storage: Storage, scan: str) -> FixedRecord | None:
    """The record of what never changes in a scan; None where there is no whole one."""
    data = storage.read(f"{scan}/{FIXED}")
    return None if data is None else parse_fixed(data)


def fingerprints(storage: Storage, scan: str) -> set[int]:
    """The fingerprints of the scans that the blocks recorded under a name belong to."""
    names = [name for name in storage.names(f"{scan}/ledger") if name != f"{scan}/{FIXED}"]
    lines = [line for name in names for line in (storage.read(name) or b"").splitlines(True)]
    return {record.scan for record in map(parse_block, lines) if record is not None}


def has_blocks(storage: Storage, scan: str) -> bool:
    """Whether anything of a scan was recorded, be it damaged."""
    return any(name != f"{scan}/{FIXED}" for name in storage.names(f"{scan}/ledger"))


class Ledger:
    """The records of the blocks of one scan. Several processes may add to them."""

    def __init__(self, storage: Storage, scan: str, layout: ScanLayout, fingerprint: int) -> None:
        self._storage = storage
        self._scan = scan
        self._layout = layout
        self._arrays = layout.arrays()
        self._fingerprint = fingerprint

    def read(self) -> dict[int, BlockRecord]:
        """The blocks that exist, by number in order.

        Raises:
            OSError: the records cannot be read.
        """
        # First the single ones, which are removed only when the packed ones are there.
        single = [self._read_single(number) for number in self._single()]
        found = {record.block: record for record in single if record is not None}
        found |= {record.block: record for record in self._packed()}
        return dict(sorted(found.items()))

    def has(self, block: int) -> bool:
        """Whether a block exists."""
        single = self._read_single(block)
        return single is not None or any(record.block == block for record in self._packed())

    def add(
        self, claim: Claim, block: int, files: Mapping[str, bytes], flagged: Sequence[int]
    ) -> None:
        """Make a block exist, whose files last."""
        record = BlockRecord(
            block=block,
            scan=self._fingerprint,
            flagged=tuple(flagged),
            files=marks_of(files),
        )
        claim.write({self._name(block): record.line()})

    def drop(self, claim: Claim, blocks: Collection[int]) -> None:
        """Make blocks exist no longer, and remove what is no record. Nobody else may pack."""
        damaged = [number for number in self._single() if self._read_single(number) is None]
        kept = [record.line() for record in self._packed() if record.block not in blocks]
        if self._packed_lines() != kept:
            claim.write({self._path(PACKED): b"".join(kept)})
        claim.delete(self._name(number) for number in {*blocks, *damaged})

    def pack(self, claim: Claim) -> None:
        """Put all records into one file. Nobody else may pack or drop."""
        single = self._single()
        packed = b"".join(record.line() for record in self.read().values())
        if packed != self._storage.read(self._path(PACKED)):
            claim.write({self._path(PACKED): packed})
        claim.delete(self._name(number) for number in single)

    def damaged(self) -> dict[str, int | None]:
        """What among the records is none of a block of this scan, and which block it should be."""
        found: dict[str, int | None] = {}
        for number in self._single():
            # One that is gone by now was packed by another process meanwhile.
            data = self._storage.read(self._name(number))
            if data is not None and self._parse_single(number, data) is None:
                found[self._name(number)] = number
        for number, line in enumerate(self._packed_lines(), start=1):
            if self._checked(line) is None:
                found[f"{self._path(PACKED)}, line {number}"] = None
        return found

    def _single(self) -> list[int]:
        """The blocks with a record of their own."""
        names = self._storage.names(self._path("ledger"))
        matches = (_SINGLE.fullmatch(PurePosixPath(name).name) for name in names)
        return [int(match[1]) for match in matches if match]

    def _read_single(self, block: int) -> BlockRecord | None:
        data = self._storage.read(self._name(block))
        return None if data is None else self._parse_single(block, data)

    def _parse_single(self, block: int, data: bytes) -> BlockRecord | None:
        record = self._checked(data)
        return record if record is not None and record.block == block else None

    def _packed(self) -> list[BlockRecord]:
        parsed = map(self._checked, self._packed_lines())
        return [record for record in parsed if record is not None]

    def _packed_lines(self) -> list[bytes]:
        return (self._storage.read(self._path(PACKED)) or b"").splitlines(keepends=True)

    def _checked(self, line: bytes) -> BlockRecord | None:
        """The record of a line, if it is of a block of this scan."""
        record = parse_block(line)
        if record is None or record.scan != self._fingerprint:
            return None
        if not 0 <= record.block < self._layout.blocks:
            return None
        rows = self._layout.block_slice(record.block)
        known = range(rows.stop - rows.start)
        if record.flagged != tuple(row for row in known if row in set(record.flagged)):
            return None
        names = {spec.file(record.block) for spec in self._arrays}
        return record if record.files.keys() == names else None

    def _name(self, block: int) -> str:
        return self._path(f"ledger/{block}.json")

    def _path(self, name: str) -> str:
        return f"{self._scan}/{name}"
