"""Reading parts of the files of blocks: only the chunks that hold what was asked for.

The same bytes can be read by Zarr, which takes most of its time for other things: through it a
chunk of a shard costs a millisecond whatever its size. What is read here is an index, whose place
and checksum are the sharding codec's, and then the wanted chunks, each compressed by Zstandard
with a checksum of its content.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, Final

import google_crc32c
import numpy as np
from numcodecs.zstd import decompress
from numpy.typing import NDArray

from attnsearch.errors import StoreError
from attnsearch.store.groups import damaged
from attnsearch.store.ledger import FileMark
from attnsearch.store.presence import check_there, gone_first
from attnsearch.store.schema import ArraySpec
from attnsearch.store.storage import Storage

Indices = Sequence[NDArray[np.intp]]
"""What is wanted along every dimension but the first, in order."""

_ENTRY: Final = np.dtype("<u8")
_CHECKSUM_BYTES: Final = 4


class BlockReader:
    """Reads one array of one scan, block by block."""

    def __init__(self, storage: Storage, scan: str, fingerprint: int, spec: ArraySpec) -> None:
        """`fingerprint` is of the fixed record of the scan."""
        self._storage = storage
        self._scan = scan
        self._fingerprint = fingerprint
        self._spec = spec
        self._dtype = np.dtype(spec.dtype).newbyteorder("<")
        whole = spec.shards or spec.chunks
        self._grid = tuple(
            size // chunk for size, chunk in zip(whole[1:], spec.chunks[1:], strict=True)
        )
        self._chunk_bytes = prod(spec.chunks) * self._dtype.itemsize

    def read(
        self, block: int, mark: FileMark, rows: NDArray[np.intp], wanted: Indices, out: NDArray[Any]
    ) -> None:
        """Put `rows` of a block, counted from its first, at the `wanted` indices into `out`.

        `out` is [row, *wanted] in the type of the array.

        Raises:
            StoreError: the scan is gone, or the file is missing or is not what was written.
            OSError: it cannot be read.
        """
        name = f"{self._scan}/{self._spec.file(block)}"
        size = self._storage.size(name)
        if size != mark.size:
            check_there(self._storage, self._scan, self._fingerprint)
            found = "is missing" if size is None else f"has {size} bytes, not {mark.size}"
            raise damaged(self._storage, name, found)
        try:
            with gone_first(self._storage, self._scan, self._fingerprint):
                self._read(name, mark.size, rows, wanted, out)
        except (StoreError, OSError, MemoryError):
            raise
        except Exception as error:  # whatever decoders raise
            raise damaged(self._storage, name, "cannot be decoded") from error

    def _read(
        self,
        name: str,
        size: int,
        rows: NDArray[np.intp],
        wanted: Indices,
        out: NDArray[Any],
    ) -> None:
        places = [
            self._places(axis, indices, chunk)
            for axis, (indices, chunk) in enumerate(zip(wanted, self._spec.chunks[1:], strict=True))
        ]
        combinations = list(product(*places))
        spans = self._spans(name, size)
        numbers = [
            int(np.ravel_multi_index([place[0] for place in each], self._grid))
            for each in combinations
        ]
        parts = self._storage.read_parts(name, [spans[number] for number in numbers])
        for combination, part in zip(combinations, parts, strict=True):
            inside = tuple(place[1] for place in combination)
            target = out[(slice(None), *(place[2] for place in combination))]
            self._decode(part, rows, inside, target)

    def _places(
        self, axis: int, indices: NDArray[np.intp], chunk: int
    ) -> list[tuple[int, NDArray[np.intp], slice]]:
        """Along an axis: numbers of chunks, indices within each, and where these belong."""
        if self._grid[axis] == 1:
            return [(0, indices, slice(None))]
        assert chunk == 1, "an array is cut apart index by index"
        first = np.zeros(1, dtype=np.intp)
        return [(int(index), first, slice(at, at + 1)) for at, index in enumerate(indices)]

    def _spans(self, name: str, size: int) -> list[tuple[int, int]]:
        """Where each chunk begins and ends in the file."""
        if self._spec.shards is None:
            return [(0, size)]
        count = prod(self._grid)
        length = count * 2 * _ENTRY.itemsize + _CHECKSUM_BYTES
        (index,) = self._storage.read_parts(name, [(size - length, size)])
        entries, checksum = index[:-_CHECKSUM_BYTES], index[-_CHECKSUM_BYTES:]
        if google_crc32c.value(entries).to_bytes(_CHECKSUM_BYTES, "little") != checksum:
            raise ValueError("the index of the shard has another checksum")
        table = np.frombuffer(entries, _ENTRY).reshape(count, 2).tolist()
        return [(offset, offset + length) for offset, length in table]

    def _decode(
        self, part: bytes, rows: NDArray[np.intp], inside: Indices, target: NDArray[Any]
    ) -> None:
        chunk = self._spec.chunks
        if (size := content_bytes(part)) != self._chunk_bytes:
            raise ValueError(f"a chunk holds {size} bytes, not {self._chunk_bytes}")
        all_rows = len(rows) == chunk[0]
        all_inside = all(map(_counts_up_to, inside, chunk[1:]))
        if all_rows and all_inside and target.flags.c_contiguous:
            decompress(part, target)
            return
        values = np.empty(chunk, self._dtype)
        decompress(part, values)
        chosen = values if all_rows else values[rows]
        target[...] = chosen if all_inside else chosen[(slice(None), *_open_mesh(inside))]


def content_bytes(frame: bytes) -> int | None:
    """Bytes that a Zstandard frame says it holds (RFC 8878, 3.1.1.1); None where it does not."""
    descriptor = frame[4]
    single = descriptor >> 5 & 1
    begin = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    length = (single, 2, 4, 8)[descriptor >> 6]
    size = int.from_bytes(frame[begin : begin + length], "little")
    return None if not length else size + 256 * (length == 2)


def _counts_up_to(indices: NDArray[np.intp], size: int) -> bool:
    """Whether indices are all there are, in order."""
    return len(indices) == size and bool((indices == np.arange(size)).all())


def _open_mesh(indices: Indices) -> Sequence[NDArray[np.intp] | slice]:
    # A slice where that does: picking by lists copies number by number.
    cuts = [_slice_of(each) for each in indices]
    if all(cut is not None for cut in cuts):
        return [cut for cut in cuts if cut is not None]
    return np.ix_(*indices)


def _slice_of(indices: NDArray[np.intp]) -> slice | None:
    if not len(indices) or not (np.diff(indices) == 1).all():
        return None
    return slice(int(indices[0]), int(indices[-1]) + 1)
