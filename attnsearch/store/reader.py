"""Open a store with xarray, lazily, showing only what was committed.

Everything here also works without us: `xarray.open_datatree(path, engine="zarr")` reads the same
arrays, with fill values where an unfinished scan has no samples yet. Nothing here writes.
"""

from pathlib import Path

import xarray as xr

from attnsearch.axes import SAMPLE
from attnsearch.errors import StoreError
from attnsearch.store.groups import child_groups, disk_errors, read_group
from attnsearch.store.ledger import LEDGER_NAME, Ledger
from attnsearch.store.schema import LAYOUT_ATTRIBUTE, ScanLayout


def scan_names(path: Path) -> list[str]:
    """Names of the scans in the store at `path`, sorted.

    Raises:
        StoreError: there is no store, or another version of attnsearch wrote it.
    """
    read_group(path)
    with disk_errors("read", path):
        return child_groups(path)


def open_store(path: Path) -> xr.DataTree:
    """Every scan of a store as one tree, each restricted to its committed samples.

    Raises:
        StoreError: there is no store, a scan is damaged, or another version of attnsearch wrote it.
    """
    attributes = read_group(path)["attributes"]
    root = xr.Dataset(attrs=attributes)
    scans = {name: _committed(path, name) for name in scan_names(path)}
    return xr.DataTree.from_dict({"/": root, **scans})


def open_scan(path: Path, name: str | None = None) -> xr.Dataset:
    """One scan: coordinates in memory, data as dask arrays with one chunk a block.

    `name` may be left out when the store holds one scan.

    Raises:
        StoreError: there is no store or no such scan, several and no name, nothing committed yet,
            damage, or another version of attnsearch wrote it.
    """
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
    dataset = _committed(path, name)
    if dataset.sizes[SAMPLE] == 0:
        raise StoreError(f"scan {name!r} of {path} has no finished block yet; scan it first")
    return dataset


def open_scans(path: Path, name: str | None = None) -> dict[str, xr.Dataset]:
    """Every begun scan of a store by name, or only the one asked for; as of `open_scan`.

    Scans without a finished block are left out, unless there are no others.

    Raises:
        StoreError: as `open_scan`.
    """
    names = scan_names(path) if name is None else [name]
    if not names:
        raise StoreError(f"{path} holds no scan yet")
    begun = [one for one in names if name is not None or _committed(path, one).sizes[SAMPLE]]
    return {one: open_scan(path, one) for one in begun or names}


def layout_of(dataset: xr.Dataset) -> ScanLayout:
    """The layout a dataset was stored with; `samples` counts those planned, not those read.

    Raises:
        StoreError: the dataset does not come from a store.
    """
    return ScanLayout.from_dict(dataset.attrs.get(LAYOUT_ATTRIBUTE, {}))


def _committed(path: Path, name: str) -> xr.Dataset:
    group = path / name
    read_group(group)
    with disk_errors("read", group):
        ledger = Ledger.load(group / LEDGER_NAME)
        if damage := ledger.first_damage():
            raise StoreError(f"{group} is damaged: {damage}; remove that folder and scan again")
        dataset: xr.Dataset = xr.open_zarr(path, group=name, chunks=None, consolidated=True)
        layout = layout_of(dataset)
        samples = min(len(ledger.records) * layout.block, layout.samples)
        dataset = dataset.isel({SAMPLE: slice(0, samples)})
        coordinates = {name: values.load() for name, values in dataset.coords.items()}
        # A chunk a file: chunks of our own making would read every file several times.
        return dataset.chunk({SAMPLE: layout.block}).assign_coords(coordinates)
