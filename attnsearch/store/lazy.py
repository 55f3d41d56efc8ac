"""The arrays of a scan as Dask sees them: only what exists, and damage said in one line.

Zarr reads a file that is missing as fill values, and one that is damaged with an error of some
decoder. Here every file is looked at before it is read.
"""

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from attnsearch.store.groups import METADATA_NAME, damaged
from attnsearch.store.ledger import BlockRecord
from attnsearch.store.schema import ArraySpec, ScanLayout
from attnsearch.store.storage import Storage


def shown_rows(layout: ScanLayout, record: BlockRecord) -> NDArray[np.int64]:
    """The samples of a block that are not flagged."""
    rows = layout.block_slice(record.block)
    return np.delete(np.arange(rows.start, rows.stop), record.flagged)


def shown_samples(layout: ScanLayout, records: Mapping[int, BlockRecord]) -> NDArray[np.int64]:
    """The samples of the blocks that exist that are not flagged, in order."""
    rows = [shown_rows(layout, record) for record in records.values()]
    return np.concatenate([np.arange(0), *rows])


def lazy_array(
    storage: Storage,
    scan: str,
    layout: ScanLayout,
    spec: ArraySpec,
    records: Mapping[int, BlockRecord],
) -> da.Array:
    """An array of a scan restricted to `shown_samples`, one chunk a block.

    Computing it raises StoreError where a file is missing or damaged.
    """
    # A chunk a file: chunks of our own making would read every file several times.
    sizes = [len(shown_rows(layout, record)) for record in records.values()]
    chunks = (tuple(size for size in sizes if size), *spec.shape[1:])
    if not chunks[0]:
        return da.empty((0, *spec.shape[1:]), dtype=spec.dtype, chunks=(0, *spec.shape[1:]))
    array = _StoredArray(storage, scan, layout, spec, records)
    return da.from_array(array, chunks=chunks, asarray=False)


def _open(storage: Storage, name: str) -> zarr.Array[Any]:
    try:
        return zarr.open_array(storage.zarr_store(), path=name, mode="r", zarr_format=3)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # metadata of codecs that do not exist, and the like
        raise damaged(storage, f"{name}/{METADATA_NAME}", "cannot be read") from error


class _StoredArray:
    """One array of a scan, of nothing but `shown_samples`, for `dask.array.from_array`."""

    def __init__(
        self,
        storage: Storage,
        scan: str,
        layout: ScanLayout,
        spec: ArraySpec,
        records: Mapping[int, BlockRecord],
    ) -> None:
        self._storage = storage
        self._scan = scan
        self._block = layout.block
        self._spec = spec
        self._records = records
        self._rows = shown_samples(layout, records)
        self._array = _open(storage, f"{scan}/{spec.name}")
        self.shape = (len(self._rows), *spec.shape[1:])
        self.ndim = len(self.shape)
        self.dtype = np.dtype(spec.dtype)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        files = [record.files[self._spec.file(block)] for block, record in self._records.items()]
        return (str(self._storage), self._scan, self._spec.name, tuple(self._records), tuple(files))

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """The values at slices, numbers and lists, the first of which stay within a block."""
        first, *others = index
        rows = np.atleast_1d(self._rows[first])
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *others)]
        block = int(rows[0]) // self._block
        self._check(block)
        begin = int(rows.min())
        try:
            at = (slice(begin, int(rows.max()) + 1), *others)
            values = np.asarray(self._array.oindex[at])  # of some roles only these are read
        except (OSError, MemoryError):
            raise
        except Exception as error:  # damaged bytes make the decoders raise almost anything
            raise self._damaged(block, "cannot be decoded") from error
        chosen = values[rows - begin] if rows[0] > rows[-1] or len(rows) != len(values) else values
        return chosen if isinstance(first, slice) else chosen[0]

    def _check(self, block: int) -> None:
        mark = self._records[block].files[self._spec.file(block)]
        size = self._storage.size(f"{self._scan}/{self._spec.file(block)}")
        if size is None:
            raise self._damaged(block, "is missing")
        if size != mark.size:
            raise self._damaged(block, f"has {size} bytes, not {mark.size}")

    def _damaged(self, block: int, what: str) -> Exception:
        return damaged(self._storage, f"{self._scan}/{self._spec.file(block)}", what)
