"""Reducing an array of maps, one piece of samples at a time, wherever tasks run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce as fold
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed, delayed
from numpy.typing import NDArray

from attnsearch.aggregation.algebra import Rows, State, Statistic
from attnsearch.aggregation.groups import Grouping
from attnsearch.axes import SAMPLE
from attnsearch.errors import MetricError
from attnsearch.scheduling import Runner

TOGETHER: Final = 8
"""States that one task puts together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """What is known of some samples."""

    groups: NDArray[np.intp]
    """Numbers of the groups that occur, ascending."""
    states: tuple[State, ...]
    """One for each statistic, arrays [group, ...]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """What is to be kept of an array whose first dimension is samples.

    Raises:
        MetricError: `keep` names something that is neither a dimension nor a coordinate of
            samples, or names it twice.
    """

    values: xr.DataArray
    keep: tuple[str, ...]
    """Dimensions and coordinates of samples that remain; all others are reduced."""
    statistics: tuple[Statistic, ...]

    def __post_init__(self) -> None:
        if len(set(self.keep)) < len(self.keep):
            raise MetricError(f"an axis is kept once, not {', '.join(self.keep)}")
        along = [str(name) for name, it in self.values.coords.items() if it.dims == (SAMPLE,)]
        known = dict.fromkeys([*map(str, self.values.dims), *along])
        for name in self.keep:
            if name not in known:
                raise MetricError(f"unknown axis {name!r}; there are {', '.join(known)}")

    @property
    def cells(self) -> tuple[str, ...]:
        """Dimensions that are no samples, and are kept."""
        return tuple(str(name) for name in self.values.dims[1:] if name in self.keep)

    @property
    def dropped(self) -> tuple[int, ...]:
        """Axes that are no samples, and are reduced."""
        names = self.values.dims[1:]
        return tuple(axis for axis, name in enumerate(names, start=1) if name not in self.keep)

    def grouping(self) -> Grouping:
        """The groups of samples that are kept apart."""
        return Grouping.of(
            self.values, [name for name in self.keep if name not in self.values.dims[1:]]
        )

    @property
    def pieces(self) -> int:
        """Tasks that read."""
        data = self.values.data
        return data.numblocks[0] if isinstance(data, da.Array) else 1

    def partial(
        self, codes: NDArray[np.intp], runner: Runner, advance: Callable[[int], None]
    ) -> Partial:
        """The state of all samples, of which there must be some, given the group of each.

        `advance` counts pieces.
        """
        data = self.values.data
        if not isinstance(data, da.Array):
            state = piece_state(data, codes, self.statistics, self.dropped)
            advance(1)
            return state
        whole = data.rechunk(dict.fromkeys(range(1, data.ndim), -1))
        lazy_codes = da.from_array(codes, chunks=(whole.chunks[0],))
        states = da.map_blocks(
            _piece_state,
            whole,
            lazy_codes[(slice(None), *[None] * (data.ndim - 1))],
            statistics=self.statistics,
            dropped=self.dropped,
            dtype=object,
            meta=np.empty((0,) * data.ndim, dtype=object),
        )
        parts: list[Delayed] = states.to_delayed().ravel().tolist()
        return runner.run(parts, _tree(parts, self.statistics), advance)

    def result(self, grouping: Grouping, partial: Partial) -> xr.Dataset:
        """What the statistics say, with coordinates."""
        values = self.values
        kept = {name: values.coords[name] for name in self.cells if name in values.coords}
        found: dict[str, Any] = {}
        for statistic, state in zip(self.statistics, partial.states, strict=True):
            for name, (more, array) in statistic.finalise(state).items():
                fill = np.nan if array.dtype.kind == "f" else 0
                spread = grouping.spread(partial.groups, array, fill)
                found[name] = ((*grouping.keys, *self.cells, *more), spread)
        dataset = xr.Dataset(found, {**grouping.coordinates(values), **kept})
        return dataset.transpose(*self.keep, ...)


def piece_state(
    values: NDArray[Any],
    codes: NDArray[np.intp],
    statistics: Sequence[Statistic],
    dropped: Sequence[int],
) -> Partial:
    """The state of some samples: values [sample, ...] and the group of each."""
    groups, numbers = np.unique(codes, return_inverse=True)
    rows = Rows.of(np.sort(numbers))
    if (np.diff(numbers) < 0).any():
        values = values[np.argsort(numbers, kind="stable")]
    return Partial(
        groups=groups,
        states=tuple(each.chunk(values, rows, dropped) for each in statistics),
    )


def put_together(statistics: Sequence[Statistic], one: Partial, other: Partial) -> Partial:
    """The state of the samples of both."""
    if np.array_equal(one.groups, other.groups):
        pairs = zip(statistics, one.states, other.states, strict=True)
        return Partial(groups=one.groups, states=tuple(s.combine(a, b) for s, a, b in pairs))
    groups = np.union1d(one.groups, other.groups)
    first = np.searchsorted(groups, one.groups)
    second = np.searchsorted(groups, other.groups)
    states = []
    for statistic, a, b in zip(statistics, one.states, other.states, strict=True):
        state = statistic.empty(a, len(groups))
        for name, array in a.items():
            state[name][first] = array
        there = {name: array[second] for name, array in state.items()}
        for name, array in statistic.combine(there, b).items():
            state[name][second] = array
        states.append(state)
    return Partial(groups=groups, states=tuple(states))


def _piece_state(
    values: NDArray[Any],
    codes: NDArray[np.intp],
    *,
    statistics: Sequence[Statistic],
    dropped: Sequence[int],
) -> Partial:
    return piece_state(values, codes.ravel(), statistics, dropped)


def _tree(pieces: list[Delayed], statistics: Sequence[Statistic]) -> Delayed:
    """Neighbours put together, then neighbours of those; the order never depends on time."""
    combine = delayed(_combine, pure=False)
    while True:
        pieces = [
            combine(statistics, pieces[begin : begin + TOGETHER])
            for begin in range(0, len(pieces), TOGETHER)
        ]
        if len(pieces) == 1:
            return pieces[0]


def _combine(statistics: Sequence[Statistic], partials: list[Partial]) -> Partial:
    return fold(lambda one, other: put_together(statistics, one, other), partials)
