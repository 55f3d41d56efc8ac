"""Aggregates as a table: a row for every combination of what was kept."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from attnsearch.cleanup import placed
from attnsearch.errors import ConfigError

MODEL: Final = "model"
"""Column of the names of scans."""

Table = dict[str, NDArray[Any]]
"""Columns of equal length, by name."""


def table_of(aggregates: Mapping[str, xr.Dataset]) -> Table:
    """The aggregates of some scans, by their names, one below the other.

    Columns are the scan, what was kept, and every variable that has no further dimension. Rows of
    which there is no value are left out.
    """
    tables = [_rows(name, aggregate) for name, aggregate in aggregates.items()]
    return {column: np.concatenate([table[column] for table in tables]) for column in tables[0]}


def check_parquet(path: Path) -> None:
    """Find out before anything is computed that a table cannot be written.

    Raises:
        ConfigError: the name does not end in .parquet, its folder does not exist, or pyarrow is not
            installed.
    """
    if path.suffix != ".parquet":
        raise ConfigError(f"{path} has another ending than .parquet, which is what is written")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no folder {path.parent}")
    if find_spec("pyarrow") is None:
        raise ConfigError('Parquet files need pyarrow: pip install "attnsearch[parquet]"')


def write_parquet(path: Path, table: Table, facts: Mapping[str, str]) -> None:
    """A table as a Parquet file, whole or not at all; `facts` become its metadata.

    Raises:
        ConfigError: as `check_parquet`, or the file cannot be written.
    """
    check_parquet(path)
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        name: column.astype(object) if column.dtype.kind in "OTU" else column
        for name, column in table.items()
    }
    whole = pa.table(columns).replace_schema_metadata(dict(facts))
    try:
        with placed(path, path.with_suffix(".unfinished")) as unfinished:
            parquet.write_table(whole, unfinished)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _rows(name: str, aggregate: xr.Dataset) -> Table:
    axes = aggregate["count"].dims
    columns: Table = {MODEL: np.full(aggregate["count"].size, name, dtype=object)}
    grid = np.indices(aggregate["count"].shape).reshape(len(axes), aggregate["count"].size)
    for axis, numbers in zip(axes, grid, strict=True):
        known = axis in aggregate.coords
        columns[str(axis)] = aggregate[axis].to_numpy()[numbers] if known else numbers
    for variable, values in aggregate.data_vars.items():
        if values.dims == axes:
            columns[str(variable)] = values.to_numpy().ravel()
    return {column: values[columns["count"] > 0] for column, values in columns.items()}
