"""Count, mean, deviation and extremes of anything stored, over all maps."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from attnsearch.aggregation import Aggregator, Extremes, Histogram, Moments, Quantity, Statistic
from attnsearch.api.scans import OpenedScans, Scans, opened_aggregator, opened_scans
from attnsearch.axes import Branch
from attnsearch.errors import ConfigError
from attnsearch.metrics.naming import bounds_of, quantity_called, usual_axes
from attnsearch.scheduling import THREADS
from attnsearch.tables import Column, Table

_MODEL = "model"

Values = npt.NDArray[Any]


class Aggregates(Table[Mapping[str, Any]]):
    """A row for every combination of what was kept, of every scan, that has a value.

    Columns are the scan, the axes that were kept, count, mean, variance, minimum, maximum and the
    quantiles asked for.
    """

    datasets: Mapping[str, xr.Dataset]
    """The same by scan, as arrays along the kept axes."""
    _rows: "_Rows"
    _scans: OpenedScans

    @classmethod
    def of(cls, datasets: Mapping[str, xr.Dataset], title: str, scans: OpenedScans) -> "Aggregates":
        """The aggregates of some scans, by their names, one below the other."""
        tables = [_columns(name, dataset) for name, dataset in datasets.items()]
        columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        found = cls(_Rows(columns), title, scans.notes)
        found.datasets, found._scans = datasets, scans
        return found

    @property
    def columns(self) -> Sequence[Column[Mapping[str, Any]]]:
        """See `Table`; the deviation is shown where the variance is kept."""
        values = self._rows.columns
        names = [name for name in values if name != _MODEL or len(self.datasets) > 1]
        shown: list[Column[Mapping[str, Any]]] = []
        for name in names:
            if name == "variance":
                shown.append(Column("deviation", lambda row: _cell(float(row["variance"]) ** 0.5)))
            else:
                words = values[name].dtype.kind in "OTU"
                shown.append(Column(name, partial(_cell_of, name), words=words))
        return shown

    def record(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as plain values, NaN as None, and the blocks of its scan."""
        plain = {name: None if value != value else value for name, value in row.items()}
        return plain | self._scans.blocks(str(row[_MODEL]))

    def largest_first(self) -> "Aggregates":
        """The same rows by their mean, largest first."""
        order = np.argsort(-self._rows.columns["mean"], kind="stable")
        ordered = self[:]
        ordered._rows = self._rows.taken(order)
        return ordered

    def to_pandas(self) -> pd.DataFrame:
        """The rows; see the class for the columns."""
        return pd.DataFrame(self._rows.columns)

    def to_xarray(self) -> xr.Dataset:
        """Arrays along model and the kept axes, NaN where a model has no value."""
        names = pd.Index(list(self.datasets), name=_MODEL)
        return xr.concat(list(self.datasets.values()), dim=names, join="outer")


class _Rows(Sequence[Mapping[str, Any]]):
    """Columns of equal length, seen as rows."""

    def __init__(self, columns: Mapping[str, Values]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["count"])

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "_Rows": ...
    def __getitem__(self, index: int | slice) -> "Mapping[str, Any] | _Rows":
        if isinstance(index, slice):
            return self.taken(index)
        return {name: _plain(column[index]) for name, column in self.columns.items()}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        lists = {name: column.tolist() for name, column in self.columns.items()}
        for row in zip(*lists.values(), strict=True):
            yield dict(zip(lists, row, strict=True))

    def taken(self, which: Any) -> "_Rows":
        return _Rows({name: column[which] for name, column in self.columns.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is asked of one scan."""

    quantity: Quantity
    keep: tuple[str, ...]
    statistics: tuple[Statistic, ...]
    histogram: Histogram | None


def aggregate(
    store: Scans | None,
    what: str,
    *,
    keep: Sequence[str] | None = None,
    branch: Branch = Branch.COND,
    quantiles: Sequence[float] = (),
    scan: str | None = None,
    dask: str = THREADS,
) -> Aggregates:
    """Reduce a stored quantity over every axis that is not kept.

    `store` is as of `ask`; None is the usual store. `what` is an array (`entropy`, `peak`,
    `energy`, `score_shape` ...), roles (`colour1+shape1`), of whose attention every coefficient of
    the basis is reduced, or a template (`object1 -> relation`), of which attention summed over the
    region (total) and per unit of region (share) are. By default all axes but sample and step are
    kept. `quantiles` in [0, 1] are of what has bounds.

    Raises:
        MetricError: there is no such array, role, region or axis, or it has no bounds.
        StoreError: there is no such store, or something of it is damaged.
    """
    scans = opened_scans(store, scan)
    asked = _asked(scans, what, keep, branch, quantiles)
    found = {}
    with opened_aggregator(dask) as aggregator:
        for name, of in asked.items():
            found[name] = aggregator(scans[name], of.quantity, of.keep, of.statistics)
    for name, of in asked.items():
        if of.histogram is not None:
            counts = found[name]["histogram"]
            for share in quantiles:
                values = of.histogram.quantile(counts.to_numpy(), share)
                found[name][f"quantile_{share:g}"] = (counts.dims[:-1], values)
            found[name] = found[name].drop_vars("histogram")
    return Aggregates.of(found, f"{what} in {scans.title}, {branch}", scans)


def plan_aggregate(
    store: Scans | None,
    what: str,
    *,
    keep: Sequence[str] | None = None,
    branch: Branch = Branch.COND,
    quantiles: Sequence[float] = (),
    scan: str | None = None,
) -> dict[str, dict[str, Any]]:
    """What `aggregate` would read and hold in memory, by scan; reads no map.

    Raises:
        AttnsearchError: as of `aggregate`.
    """
    scans = opened_scans(store, scan)
    workers = os.cpu_count() or 1
    plans = {}
    for name, of in _asked(scans, what, keep, branch, quantiles).items():
        plan = Aggregator().plan(scans[name], of.quantity, of.keep, of.statistics)
        plans[name] = {**asdict(plan), "workers": workers, "memory": plan.memory(workers)}
    return plans


def _asked(
    scans: OpenedScans,
    what: str,
    keep: Sequence[str] | None,
    branch: Branch,
    quantiles: Sequence[float],
) -> dict[str, _Asked]:
    if not all(0 <= share <= 1 for share in quantiles):
        raise ConfigError(f"quantiles are numbers from 0 to 1, not {list(quantiles)}")
    asked = {}
    for name, opened in scans.items():
        quantity = quantity_called(what, opened, branch)
        axes = usual_axes(quantity.of(opened)) if keep is None else tuple(keep)
        statistics: tuple[Statistic, ...] = (Moments(), Extremes())
        histogram = None
        if quantiles:
            low, high = bounds_of(quantity, opened)
            histogram = Histogram(low=low, high=high)
            statistics = (*statistics, histogram)
        asked[name] = _Asked(
            quantity=quantity, keep=axes, statistics=statistics, histogram=histogram
        )
    return asked


def _columns(name: str, dataset: xr.Dataset) -> dict[str, Values]:
    axes = dataset["count"].dims
    columns: dict[str, Values] = {_MODEL: np.full(dataset["count"].size, name, dtype=object)}
    grid = np.indices(dataset["count"].shape).reshape(len(axes), dataset["count"].size)
    for axis, numbers in zip(axes, grid, strict=True):
        known = axis in dataset.coords
        columns[str(axis)] = dataset[axis].to_numpy()[numbers] if known else numbers
    for variable, values in dataset.data_vars.items():
        if values.dims == axes:
            columns[str(variable)] = values.to_numpy().ravel()
    return {column: values[columns["count"] > 0] for column, values in columns.items()}


def _cell_of(name: str, row: Mapping[str, Any]) -> str:
    return _cell(row[name])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
