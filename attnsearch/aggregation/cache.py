"""States that were computed before, kept beside the scan they are of.

An entry tells of which blocks it is, each known by a digest of its record, and which of their
samples belong together. So a scan that grew is read only where it did, and one whose blocks or
coordinates are others than they were is read anew. An entry is a line with the CRC-32 of all that
follows, a line of JSON, and the numbers; what is not exactly that is taken for nothing. Nothing
here is needed, and so nothing here fails: what cannot be written is not kept.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from attnsearch.aggregation.algebra import State
from attnsearch.cleanup import placed
from attnsearch.store.ledger import BlockRecord

_HEADER_BYTES: Final = 2**24
_ENTRY_BYTES: Final = 2**28
_ALL_BYTES: Final = 2**30
_DTYPES: Final = ("<f8", "<i8")
_DAMAGED: Final = (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A state, and what it is of."""

    blocks: Mapping[int, str]
    """Digests of their records, by number."""
    together: str
    """Digest of which of their samples belong to the same group; see `together`."""
    samples: NDArray[np.int64]
    """[group] the first sample of each, counted from that of the scan."""
    states: tuple[State, ...]
    """One for each statistic, arrays [group, ...]."""


def digest_of(record: BlockRecord) -> str:
    """What a block is known by: that of its files, down to the last bit."""
    return blake2b(record.line(), digest_size=8).hexdigest()


def together(codes: NDArray[np.intp]) -> str:
    """Digest of which samples have the same code, whatever it is."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return blake2b(rank[inverse].astype("<i8").tobytes(), digest_size=16).hexdigest()


def load(folder: Path, key: str) -> Entry | None:
    """The entry of a key; None if there is none that is whole."""
    path = folder / key
    try:
        if path.stat().st_size > _ENTRY_BYTES:
            return None
        checksum, _, rest = path.read_bytes().partition(b"\n")
        if checksum != b"%08x" % crc32(rest):
            return None
        header, _, numbers = rest.partition(b"\n")
        return _entry(json.loads(header), numbers) if len(header) <= _HEADER_BYTES else None
    except (OSError, *_DAMAGED):
        return None


def save(folder: Path, key: str, entry: Entry) -> None:
    """Keep an entry if there is room, at the expense of the oldest."""
    arrays = {"samples": entry.samples}
    for number, state in enumerate(entry.states):
        arrays |= {f"{number}.{name}": array for name, array in state.items()}
    stored = {name: np.asarray(array, _stored_type(array)) for name, array in arrays.items()}
    if sum(array.nbytes for array in stored.values()) > _ENTRY_BYTES // 2:
        return
    header = {
        "blocks": list(entry.blocks.items()),
        "together": entry.together,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in stored.items()],
    }
    parts = [json.dumps(header).encode(), b"\n", *(array.tobytes() for array in stored.values())]
    rest = b"".join(parts)
    unplaced = folder / f"{key}.{os.getpid()}"
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        _make_room(folder, len(rest))
        with placed(folder / key, unplaced):
            unplaced.write_bytes(b"%08x\n" % crc32(rest) + rest)


def _entry(header: Any, numbers: bytes) -> Entry:
    arrays: dict[str, NDArray[Any]] = {}
    begin = 0
    for name, dtype, shape in header["arrays"]:
        if dtype not in _DTYPES:
            raise ValueError(dtype)
        count = prod(map(int, shape))
        arrays[str(name)] = np.frombuffer(numbers, dtype, count, begin).reshape(shape)
        begin += arrays[name].nbytes
    samples = arrays.pop("samples")
    states: dict[int, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        number, _, field = name.partition(".")
        states.setdefault(int(number), {})[field] = array
    return Entry(
        blocks={int(block): str(digest) for block, digest in header["blocks"]},
        together=str(header["together"]),
        samples=samples,
        states=tuple(states[number] for number in range(len(states))),
    )


def _stored_type(array: NDArray[Any]) -> str:
    return "<f8" if array.dtype.kind == "f" else "<i8"


def _make_room(folder: Path, wanted: int) -> None:
    files = sorted(
        ((status.st_mtime_ns, status.st_size, Path(entry)) for entry, status in _statuses(folder)),
        key=lambda each: each[0],
    )
    room = _ALL_BYTES - wanted - sum(size for _, size, _ in files)
    for _, size, path in files:
        if room >= 0:
            return
        path.unlink(missing_ok=True)
        room += size


def _statuses(folder: Path) -> list[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        return [(entry.path, entry.stat()) for entry in entries if entry.is_file()]
