"""The question of `aggregate.py` put to other libraries, and to nobody: the floors.

Of every coefficient of the attention of branch cond to role relation: the mean and the variance
over samples, for every step, layer and head, and apart for every relation.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from _synthetic import NAME
from numpy.typing import NDArray

from attnsearch.store import open_scan
from attnsearch.store.blocks import BlockReader
from attnsearch.store.reader import source_of

Answer = tuple[NDArray[Any], NDArray[Any]]
"""Mean and variance [relation, step, layer, head, basis], relations sorted by name."""

BRANCH: Final = "cond"
ROLE: Final = "relation"
_AXES: Final = ("relation", "step", "layer", "head", "basis")


def raw(store: Path, _: Path) -> None:
    """The bytes of the wanted chunks, read from the disk and forgotten."""
    _read_all(store, decode=False)


def decoded(store: Path, _: Path) -> None:
    """The same, decompressed in one thread."""
    _read_all(store, decode=True)


def xarray_alone(store: Path, _: Path) -> None:
    """Plain Zarr, Dask and xarray, of all relations together: the easier question."""
    values = _plain(store)
    moments = xr.Dataset({"mean": values.mean("sample"), "variance": values.var("sample")})
    moments.compute()


def flox(store: Path, _: Path) -> Answer:
    """Plain Zarr and Dask, grouped by flox."""
    from flox.xarray import xarray_reduce

    values = _plain(store)
    grouped = xr.Dataset(
        {
            name: xarray_reduce(values, values["relation"].compute(), func=name)
            for name in ("mean", "var")
        }
    ).compute()
    grouped = grouped.sortby("relation").transpose(*_AXES)
    return grouped["mean"].to_numpy(), grouped["var"].to_numpy()


def duckdb(_: Path, table: Path) -> Answer:
    """SQL over Parquet."""
    import duckdb as library

    columns = _columns(table)
    moments = [f"avg({c}), var_pop({c})" for c in columns]
    query = (
        f"SELECT relation, step, layer, head, {', '.join(moments)} FROM read_parquet('{table}') "
        "GROUP BY relation, step, layer, head ORDER BY relation, step, layer, head"
    )
    found = library.sql(query).fetchnumpy()
    values = np.stack([np.asarray(column) for column in [*found.values()][4:]], axis=-1)
    return _arranged(found["relation"], found, values[:, 0::2], values[:, 1::2])


def polars(_: Path, table: Path) -> Answer:
    """Lazy frames over Parquet, with the engine for data larger than memory."""
    import polars as library

    columns = [library.col(c).cast(library.Float64) for c in _columns(table)]
    keys = ["relation", "step", "layer", "head"]
    found = (
        library.scan_parquet(table)
        .group_by(keys)
        .agg(
            *(column.mean().name.suffix("_mean") for column in columns),
            *(column.var(ddof=0).name.suffix("_var") for column in columns),
        )
        .sort(keys)
        .collect(engine="streaming")
    )
    mean, var = (
        found.select(library.selectors.ends_with(suffix)).to_numpy() for suffix in ("_mean", "_var")
    )
    return _arranged(found["relation"].to_numpy(), found, mean, var)


RIVALS: Final[dict[str, Callable[[Path, Path], Answer | None]]] = {
    "raw": raw,
    "decoded": decoded,
    "xarray": xarray_alone,
    "flox": flox,
    "duckdb": duckdb,
    "polars": polars,
}
LIBRARIES: Final = (
    "xarray", "dask", "distributed", "zarr", "flox", "duckdb", "polars", "pyarrow",
)  # fmt: skip


def libraries() -> dict[str, str]:
    """Versions of the libraries that are compared, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def export_parquet(store: Path, table: Path) -> None:
    """The maps of the question as a table: a row a map, coefficients in columns of float32."""
    import pyarrow as pa
    from pyarrow import parquet

    scan = open_scan(store, NAME)
    sketch = scan["sketch"].sel(branch=BRANCH, role=ROLE)
    sizes = [sketch.sizes[name] for name in _AXES[1:4]]
    places = np.indices(sizes, dtype=np.int16).reshape(3, -1)
    with _Table(table) as writer:
        for begin in range(0, sketch.sizes["sample"], 128):
            part = sketch.isel(sample=slice(begin, begin + 128))
            values = part.astype(np.float32).to_numpy()
            values = values.reshape(-1, values.shape[-1])
            samples = part.sizes["sample"]
            relation = np.repeat(part["relation"].to_numpy().astype(object), places.shape[1])
            keys = dict(zip(_AXES[1:4], np.tile(places, samples), strict=True))
            data = {f"c{number}": values[:, number] for number in range(values.shape[1])}
            writer.write(pa.table({"relation": relation, **keys, **data}), parquet)


class _Table:
    """A Parquet file that grows. Numbers as random as these gain nothing by dictionaries."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: Any, parquet: Any) -> None:
        if self._writer is None:
            self._writer = parquet.ParquetWriter(
                self._path, rows.schema, use_dictionary=["relation", "step", "layer", "head"]
            )
        self._writer.write_table(rows)


def _plain(store: Path) -> xr.DataArray:
    """The maps of the question as Zarr and xarray give them, in float64."""
    scan = xr.open_zarr(store, group=NAME, chunks={})
    sketch: xr.DataArray = scan["sketch"].sel(branch=BRANCH, role=ROLE, drop=True)
    return sketch.astype(np.float64)


def _columns(table: Path) -> list[str]:
    from pyarrow import parquet

    names = parquet.read_schema(table).names
    return [name for name in names if name not in _AXES]


def _arranged(relations: NDArray[Any], keys: Any, mean: NDArray[Any], var: NDArray[Any]) -> Answer:
    """Rows in the order of their keys as arrays."""
    sizes = [len(np.unique(np.asarray(keys[name]))) for name in _AXES[1:4]]
    shape = (len(np.unique(np.asarray(relations, dtype=str))), *sizes, -1)
    return mean.reshape(shape), var.reshape(shape)


def _read_all(store: Path, *, decode: bool) -> None:
    scan = open_scan(store, NAME)
    source = source_of(scan, ["sketch"])
    assert source is not None
    spec = next(spec for spec in source.layout.arrays() if spec.name == "sketch")
    number = [str(name) for name in scan["branch"].to_numpy()].index(BRANCH)
    place = [str(name) for name in scan["role"].to_numpy()].index(ROLE)
    reader = BlockReader(source.storage, NAME, source.fixed.fingerprint, spec)
    inside = [np.arange(size) for size in spec.shape[1:]]
    inside[1], inside[4] = np.array([number]), np.array([place])
    values = np.empty((source.layout.block, *map(len, inside)), np.float16)
    chunk = int(np.ravel_multi_index((number, place), (len(scan["branch"]), len(scan["role"]))))
    for block, record in source.records.items():
        if decode:
            mark = record.files[spec.file(block)]
            reader.read(block, mark, np.arange(len(values)), inside, values)
            continue
        descriptor = os.open(store / NAME / spec.file(block), os.O_RDONLY)
        size = os.fstat(descriptor).st_size
        chunks = len(scan["branch"]) * len(scan["role"])
        index = os.pread(descriptor, 16 * chunks + 4, size - 16 * chunks - 4)
        offset, length = np.frombuffer(index[:-4], "<u8").reshape(chunks, 2)[chunk].tolist()
        os.pread(descriptor, length, offset)
        os.close(descriptor)
