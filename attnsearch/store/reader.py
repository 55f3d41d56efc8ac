"""Open a store with xarray, lazily, showing only what was committed and is not flagged.

Everything here also works without us: `xarray.open_datatree(path, engine="zarr")` reads the same
arrays, with fill values where an unfinished scan has no samples yet. Nothing here writes, and a
store may be read while others write to it: what is read is what was committed when it was opened.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from attnsearch.axes import SAMPLE
from attnsearch.errors import StoreError
from attnsearch.lookup import find_store
from attnsearch.store.description import Description, describe_arrays
from attnsearch.store.groups import (
    METADATA_NAME,
    check_version,
    damaged,
    disk_errors,
    read_root,
    read_scan_attributes,
    scan_folders,
)
from attnsearch.store.lazy import lazy_array, shown_samples
from attnsearch.store.ledger import (
    FIXED,
    BlockRecord,
    FileMark,
    FixedRecord,
    Ledger,
    read_fixed,
)
from attnsearch.store.places import Place, existing_storage
from attnsearch.store.schema import COORDINATES_ATTRIBUTE, LAYOUT_ATTRIBUTE, ScanLayout
from attnsearch.store.storage import Storage

FLAGGED_SAMPLES: Final = "flagged_samples"
"""Attribute of a dataset: how many samples were committed, were not finite, and are left out."""

BLOCKS: Final = "blocks"
"""Attribute of a dataset: blocks that its scan is to have."""

BLOCKS_DONE: Final = "blocks_done"
"""Attribute of a dataset: those of them that exist; only these are read."""

_SOURCE: Final = "source_scan"
_NAMES: Final = "source_arrays"
"""In the encoding of a dataset: the `Source`, and Dask's names of the arrays it was opened with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Some blocks of a scan, of which nothing but the records and coordinates is read yet."""

    storage: Storage
    scan: str
    fixed: FixedRecord
    layout: ScanLayout
    arrays: Mapping[str, Description]
    """Data and coordinates."""
    attributes: Mapping[str, Any]
    records: Mapping[int, BlockRecord]

    @property
    def samples(self) -> NDArray[np.int64]:
        """Those of the blocks that are not flagged, counted from the first of the scan."""
        return shown_samples(self.layout, self.records)

    def without(self, blocks: Collection[int]) -> "Source":
        """The blocks that are not among some others."""
        records = {block: record for block, record in self.records.items() if block not in blocks}
        return replace(self, records=records)

    def open(self) -> xr.Dataset:
        """The samples."""
        samples = self.samples
        data = {
            spec.name: lazy_array(
                self.storage, self.scan, self.fixed, self.layout, spec, self.records
            )
            for spec in self.layout.arrays()
        }
        variables = {
            array: (
                described.dimensions,
                data[array] if described.values is None else _restricted(described, samples),
                described.attributes,
            )
            for array, described in self.arrays.items()
        }
        dataset = xr.Dataset(
            {array: variable for array, variable in variables.items() if array in data},
            {array: variable for array, variable in variables.items() if array not in data},
            self.attributes,
        )
        dataset.attrs[FLAGGED_SAMPLES] = sum(len(each.flagged) for each in self.records.values())
        dataset.attrs.update({BLOCKS: self.layout.blocks, BLOCKS_DONE: len(self.records)})
        dataset.encoding[_SOURCE] = self
        dataset.encoding[_NAMES] = {name: array.name for name, array in data.items()}
        return dataset


def source_of(dataset: xr.Dataset, arrays: Collection[str]) -> Source | None:
    """Where a dataset comes from; None if some arrays of it, or its axes, are not as opened.

    Coordinates of samples may be.
    """
    source, names = dataset.encoding.get(_SOURCE), dataset.encoding.get(_NAMES, {})
    if not isinstance(source, Source):
        return None
    # The name of a Dask array is another as soon as anything is done to it.
    same = all(getattr(dataset[name].data, "name", None) == names[name] for name in arrays)
    same = same and all(
        name in dataset.coords and np.array_equal(dataset[name].to_numpy(), described.values)
        for name, described in source.arrays.items()
        if described.values is not None and SAMPLE not in described.dimensions
    )
    return source if same and source.attributes.items() <= dataset.attrs.items() else None


def name_of(dataset: xr.Dataset) -> str | None:
    """The name of the scan a dataset was opened from; None if it does not come from a store."""
    source = dataset.encoding.get(_SOURCE)
    return source.scan if isinstance(source, Source) else None


def scan_names(path: Place | None = None) -> list[str]:
    """Names of the scans in the store at `path`, sorted; without a path, in the usual store.

    Raises:
        StoreError: there is no store, or another version of attnsearch wrote it.
    """
    path = find_store(path)
    storage = existing_storage(path)
    with disk_errors("read", path):
        read_root(storage)
        return scan_folders(storage)


def open_store(path: Place | None = None) -> xr.DataTree:
    """Every scan of a store as one tree, each restricted to its committed samples.

    Without a path it is the usual store, here and in all that opens one: that of ATTNSEARCH_STORE,
    or `attnsearch.zarr` in the working directory. It is said on stderr which.

    Raises:
        StoreError: there is no store, a scan is damaged, or another version of attnsearch wrote it.
    """
    path = find_store(path)
    storage = existing_storage(path)
    with disk_errors("read", path):
        root = xr.Dataset(attrs=read_root(storage))
    scans = {name: _committed(storage, name) for name in scan_names(path)}
    return xr.DataTree.from_dict({"/": root, **scans})


def open_scan(path: Place | None = None, name: str | None = None) -> xr.Dataset:
    """One scan: coordinates in memory, data as dask arrays with one chunk a block.

    Samples that are flagged, because something of them was not finite, are left out; attribute
    `flagged_samples` counts them. Of a scan that is not complete the finished blocks are shown;
    attributes `blocks` and `blocks_done` count those planned and those finished. `name` may be left
    out when the store holds one scan.

    Raises:
        StoreError: there is no store or no such scan, several and no name, nothing committed yet,
            nothing that is finite, damage, or another version of attnsearch wrote it. Damage to a
            block raises when the block is read.
    """
    path = find_store(path)
    names = scan_names(path)
    if not names:
        raise StoreError(f"{path} holds no scan yet")
    listed = ", ".join(names)
    if name is None:
        if len(names) > 1:
            raise StoreError(f"{path} holds several scans, say which one: {listed}")
        name = names[0]
    if name not in names:
        raise StoreError(f"{path} holds no scan called {name!r}; it holds {listed}")
    dataset = _committed(existing_storage(path), name)
    if dataset.sizes[SAMPLE] == 0:
        if flagged := dataset.attrs[FLAGGED_SAMPLES]:
            raise StoreError(
                f"none of the {flagged} samples of scan {name!r} of {path} is finite: "
                "the model's attention is broken"
            )
        raise StoreError(f"scan {name!r} of {path} has no finished block yet; scan it first")
    return dataset


def open_scans(
    path: Place | None = None,
    name: str | None = None,
    left_out: Callable[[dict[str, xr.Dataset]], object] = lambda _: None,
) -> dict[str, xr.Dataset]:
    """Every begun scan of a store by name, or only the one asked for; as of `open_scan`.

    Scans without a finished block are left out, unless there are no others; `left_out` is told
    of them.

    Raises:
        StoreError: as `open_scan`.
    """
    path = find_store(path)
    if name is not None:
        return {name: open_scan(path, name)}
    names = scan_names(path)
    if not names:
        raise StoreError(f"{path} holds no scan yet")
    storage = existing_storage(path)
    opened = {one: _committed(storage, one) for one in names}
    begun = {one: scan for one, scan in opened.items() if scan.sizes[SAMPLE]}
    if begun:
        left_out({one: scan for one, scan in opened.items() if one not in begun})
    return begun or {one: open_scan(path, one) for one in names}


def layout_of(dataset: xr.Dataset) -> ScanLayout:
    """The layout a dataset was stored with; `samples` counts those planned, not those read.

    Raises:
        StoreError: the dataset does not come from a store.
    """
    return ScanLayout.from_dict(dataset.attrs.get(LAYOUT_ATTRIBUTE, {}))


def read_fixed_files(storage: Storage, scan: str) -> tuple[FixedRecord, dict[str, bytes]]:
    """What never changes in a scan, checked against its record.

    Raises:
        StoreError: something of it is missing or damaged, or another version wrote it.
    """
    fixed = read_fixed(storage, scan)
    if fixed is None:
        raise damaged(storage, f"{scan}/{FIXED}", "is no record")
    files = {}
    for name, mark in fixed.files.items():
        data = storage.read(f"{scan}/{name}")
        if data is None or FileMark.of(data) != mark:
            if name == METADATA_NAME:
                check_version(storage, scan)
            raise damaged(storage, f"{scan}/{name}", "is not what was written")
        files[name] = data
    return fixed, files


def _committed(storage: Storage, name: str) -> xr.Dataset:
    """The committed samples of a scan that are not flagged."""
    with disk_errors("read", f"{storage}/{name}"):
        fixed, files = read_fixed_files(storage, name)
        attributes = read_scan_attributes(storage, name)
        layout = ScanLayout.from_dict(attributes.get(LAYOUT_ATTRIBUTE))
        source = Source(
            storage=storage,
            scan=name,
            fixed=fixed,
            layout=layout,
            arrays=describe_arrays(storage, name, layout, files),
            attributes={
                key: value for key, value in attributes.items() if key != COORDINATES_ATTRIBUTE
            },
            records=Ledger(storage, name, layout, fixed.fingerprint).read(),
        )
        return source.open()


def _restricted(described: Description, samples: NDArray[np.int64]) -> NDArray[Any]:
    """The values of a coordinate at the samples that exist."""
    assert described.values is not None
    along_samples = described.dimensions == (SAMPLE,)
    return described.values[samples] if along_samples else described.values
