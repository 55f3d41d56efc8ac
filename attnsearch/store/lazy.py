"""The arrays of a scan as Dask sees them: only what exists, and damage said in one line.

Zarr reads a file that is missing as fill values, and one that is damaged with an error of some
decoder. Here every file is looked at before it is read.
"""

from collections.abc import Mapping
from typing import Any, Final

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from attnsearch.store.blocks import BlockReader
from attnsearch.store.ledger import BlockRecord, FixedRecord
from attnsearch.store.schema import ArraySpec, ScanLayout
from attnsearch.store.storage import Storage

_PIECE_BYTES: Final = 256 * 2**20
"""Of all arrays of a scan. What is asked is of one branch and of few roles, a small part of it."""


def shown_rows(layout: ScanLayout, record: BlockRecord) -> NDArray[np.int64]:
    """The samples of a block that are not flagged."""
    rows = layout.block_slice(record.block)
    samples = np.arange(rows.start, rows.stop)
    # Scans have blocks by the thousand, few of them with a flag.
    return np.delete(samples, record.flagged) if record.flagged else samples


def shown_samples(layout: ScanLayout, records: Mapping[int, BlockRecord]) -> NDArray[np.int64]:
    """The samples of the blocks that exist that are not flagged, in order."""
    rows = [shown_rows(layout, record) for record in records.values()]
    return np.concatenate([np.arange(0), *rows])


def lazy_array(
    storage: Storage,
    scan: str,
    fixed: FixedRecord,
    layout: ScanLayout,
    spec: ArraySpec,
    records: Mapping[int, BlockRecord],
) -> da.Array:
    """An array of a scan restricted to `shown_samples`, one chunk some whole blocks.

    Computing it raises StoreError where the scan is gone, or a file is missing or damaged.
    """
    array = _StoredArray(storage, scan, fixed, layout, spec, records)
    chunks = (_pieces(layout, records), *spec.shape[1:])
    if not chunks[0]:
        return da.empty((0, *spec.shape[1:]), dtype=spec.dtype, chunks=(0, *spec.shape[1:]))
    return da.from_array(array, chunks=chunks, asarray=False)


def _pieces(layout: ScanLayout, records: Mapping[int, BlockRecord]) -> tuple[int, ...]:
    """Samples of each chunk: as many blocks as are worth a task of their own."""
    block_bytes = layout.bytes * min(layout.block, layout.samples) // layout.samples
    blocks = max(1, _PIECE_BYTES // block_bytes)
    sizes: dict[int, int] = {}
    for number, record in records.items():
        # By number, so that a scan that grows has the chunks it had, and more.
        piece = number // blocks
        rows = layout.block_slice(number)
        shown = rows.stop - rows.start - len(record.flagged)
        sizes[piece] = sizes.get(piece, 0) + shown
    return tuple(size for size in sizes.values() if size)


class _StoredArray:
    """One array of a scan, of nothing but `shown_samples`, for `dask.array.from_array`."""

    def __init__(
        self,
        storage: Storage,
        scan: str,
        fixed: FixedRecord,
        layout: ScanLayout,
        spec: ArraySpec,
        records: Mapping[int, BlockRecord],
    ) -> None:
        self._reader = BlockReader(storage, scan, fixed.fingerprint, spec)
        self._where = (storage.place, scan, spec.name)
        self._block = layout.block
        self._marks = {block: record.files[spec.file(block)] for block, record in records.items()}
        self._rows = shown_samples(layout, records)
        self.shape = (len(self._rows), *spec.shape[1:])
        self.ndim = len(self.shape)
        self.dtype = np.dtype(spec.dtype)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (*self._where, self._rows.tobytes(), *self._marks.items())

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """The values at slices, numbers and lists, each along a dimension of its own."""
        wanted = [np.arange(size)[one] for size, one in zip(self.shape, index, strict=True)]
        samples, *others = map(np.atleast_1d, wanted)
        rows = self._rows[samples]
        values = np.empty((len(rows), *map(len, others)), self.dtype)
        if values.size:
            self._fill(values, rows, others)
        return values[tuple(0 if each.ndim == 0 else slice(None) for each in wanted)]

    def _fill(
        self, values: NDArray[Any], rows: NDArray[np.int64], others: list[NDArray[np.intp]]
    ) -> None:
        blocks = rows // self._block
        ends = [*(np.flatnonzero(np.diff(blocks)) + 1), len(rows)]
        for begin, end in zip([0, *ends], ends, strict=False):
            block = int(blocks[begin])
            inside = rows[begin:end] - block * self._block
            self._reader.read(block, self._marks[block], inside, others, values[begin:end])
