"""The algebra of reductions: what is kept of maps, how two such are put together, what they say.

Values are [row, *cells]: rows are samples, those of a group beside each other; cells are axes such
as step, layer and head, some of which are dropped, that is, reduced like rows. A state holds arrays
[group, *kept] in float64, and counts. NaN is left out and not counted.

Means and centred sums are put together by the formulas of Chan, Golub and LeVeque (1983), which
do not lose small variances beside large means.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce as fold
from itertools import pairwise
from math import prod
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from attnsearch.errors import ConfigError

Floats = NDArray[np.float64]
State = Mapping[str, NDArray[Any]]
"""What is kept; every array is [group, ...]."""

_FEW_ROWS: Final = 4
"""Of a group, below which a call for each group is slower than one for all."""
SLAB_BYTES: Final = 2 * 2**20
"""Worked on at once, so that it stays in the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The groups of rows, those of a group beside each other."""

    begins: NDArray[np.intp]
    """[group] the first row of each, ascending from 0; every group has rows."""
    end: int
    """How many rows there are."""

    @classmethod
    def of(cls, groups: NDArray[np.intp]) -> Self:
        """Rows whose groups, given in order, are counted from 0."""
        return cls(begins=np.flatnonzero(np.diff(groups, prepend=-1)), end=len(groups))

    @property
    def count(self) -> int:
        """Groups."""
        return len(self.begins)

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Rows of each group."""
        return np.diff(self.begins, append=self.end)

    @property
    def groups(self) -> NDArray[np.intp]:
        """The group of each row."""
        return np.repeat(np.arange(self.count), self.sizes)

    def slices(self) -> list[slice]:
        """The rows of each group."""
        return [slice(*each) for each in pairwise([*self.begins.tolist(), self.end])]

    def sum(self, values: Floats) -> Floats:
        """Sums of the rows of each group, [group, ...]."""
        if self.count == self.end:
            return values
        if self.end < _FEW_ROWS * self.count:
            return np.add.reduceat(values, self.begins, axis=0)
        sums = np.empty((self.count, *values.shape[1:]))
        for group, rows in enumerate(self.slices()):
            values[rows].sum(axis=0, out=sums[group, ...])
        return sums

    def sum_squares(self, values: Floats) -> Floats:
        """Sums of the squares of the rows of each group, [group, ...]."""
        if self.end < _FEW_ROWS * self.count:
            return self.sum(np.square(values))
        sums = np.empty((self.count, *values.shape[1:]))
        for group, rows in enumerate(self.slices()):
            np.einsum("r...,r...->...", values[rows], values[rows], out=sums[group, ...])
        return sums


class Statistic(Protocol):
    """A reduction."""

    def chunk(self, values: NDArray[Any], rows: Rows, dropped: Sequence[int]) -> State:
        """The state of some values; `dropped` are axes of them, none of which is 0."""

    def combine(self, one: State, other: State) -> State:
        """The state of the maps of both; every group is in both."""

    def empty(self, like: State, groups: int) -> dict[str, NDArray[Any]]:
        """The state of no maps at all, in the shapes of another, with which nothing changes."""

    def finalise(self, state: State) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
        """What it says: name to (dimensions after [group, *kept], values)."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and variance (of the values themselves: divided by the count)."""

    def chunk(self, values: NDArray[Any], rows: Rows, dropped: Sequence[int]) -> State:
        """See `Statistic`."""
        return _gather(values, rows, dropped, self._slab, self.combine)

    def combine(self, one: State, other: State) -> State:
        """See `Statistic`."""
        count = one["count"] + other["count"]
        share = other["count"] / np.maximum(count, 1)
        difference = other["mean"] - one["mean"]
        return {
            "count": count,
            "mean": one["mean"] + difference * share,
            "squares": one["squares"]
            + other["squares"]
            + np.square(difference) * (share * one["count"]),
        }

    def empty(self, like: State, groups: int) -> dict[str, NDArray[Any]]:
        """See `Statistic`."""
        return _zeros(like, groups)

    def finalise(self, state: State) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
        """See `Statistic`."""
        known = state["count"] > 0
        with np.errstate(invalid="ignore"):
            variance = state["squares"] / state["count"]
        return {
            "count": ((), state["count"]),
            "mean": ((), np.where(known, state["mean"], np.nan)),
            "variance": ((), variance),
        }

    @staticmethod
    def _slab(values: Floats, rows: Rows, dropped: Sequence[int]) -> State:
        # Relative to a row of their own, the sums of squares do not cancel where means are large.
        shift = np.where(np.isfinite(values[:1]), values[:1], 0)
        np.subtract(values, shift, out=values)
        total = rows.sum(values)
        if np.isfinite(total).all():
            sizes = rows.sizes.reshape(-1, *[1] * (values.ndim - 1))
            count = np.broadcast_to(sizes, total.shape)
        else:
            known = np.isfinite(values)
            values[~known] = 0
            total = rows.sum(values)
            count = rows.sum(known.astype(np.float64)).astype(np.int64)
        squares = rows.sum_squares(values)
        divisor = np.maximum(count, 1)
        squares = np.maximum(squares - np.square(total) / divisor, 0)
        state = {"count": count, "mean": total / divisor + shift, "squares": squares}
        return _drop_moments(state, dropped) if dropped else state


@dataclass(frozen=True, slots=True)
class Covariance:
    """Count, means and covariances between the entries along the last axis, which is kept.

    A map counts where all its entries are known.
    """

    def chunk(self, values: NDArray[Any], rows: Rows, dropped: Sequence[int]) -> State:
        """See `Statistic`."""
        if values.ndim - 1 in dropped:
            raise ConfigError("covariances are between the entries of an axis that is kept")
        return _gather(values, rows, dropped, self._slab, self.combine)

    def combine(self, one: State, other: State) -> State:
        """See `Statistic`."""
        count = one["count"] + other["count"]
        share = other["count"] / np.maximum(count, 1)
        difference = other["mean"] - one["mean"]
        weighted = difference * (share * one["count"])
        return {
            "count": count,
            "mean": one["mean"] + difference * share,
            "products": one["products"]
            + other["products"]
            + weighted[..., :, None] * difference[..., None, :],
        }

    def empty(self, like: State, groups: int) -> dict[str, NDArray[Any]]:
        """See `Statistic`."""
        return _zeros(like, groups)

    def finalise(self, state: State) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
        """See `Statistic`."""
        with np.errstate(invalid="ignore"):
            covariance = state["products"] / state["count"][..., None]
        return {"covariance": (("other",), covariance)}

    def _slab(self, values: Floats, rows: Rows, dropped: Sequence[int]) -> State:
        known = np.logical_and.reduce(np.isfinite(values), axis=-1, keepdims=True)
        filled: Floats = np.where(known, values, 0)
        count = rows.sum(known.astype(np.float64)).astype(np.int64)
        mean = rows.sum(filled) / np.maximum(count, 1)
        centred = np.where(known, filled - mean[rows.groups], 0)
        products = np.stack(
            [
                np.einsum("r...i,r...j->...ij", one, one, optimize=True)
                for one in (centred[each] for each in rows.slices())
            ]
        )
        state: State = {"count": count, "mean": mean, "products": products}
        for axis in sorted(dropped, reverse=True):
            parts = [
                {name: np.take(array, at, axis=axis) for name, array in state.items()}
                for at in range(values.shape[axis])
            ]
            state = parts[0]
            for part in parts[1:]:
                state = self.combine(state, part)
        return state


@dataclass(frozen=True, slots=True)
class Extremes:
    """The smallest and the largest value."""

    def chunk(self, values: NDArray[Any], rows: Rows, dropped: Sequence[int]) -> State:
        """See `Statistic`."""
        return _gather(values, rows, dropped, self._slab, self.combine)

    def combine(self, one: State, other: State) -> State:
        """See `Statistic`."""
        return {
            "minimum": np.fmin(one["minimum"], other["minimum"]),
            "maximum": np.fmax(one["maximum"], other["maximum"]),
        }

    def empty(self, like: State, groups: int) -> dict[str, NDArray[Any]]:
        """See `Statistic`."""
        return {name: np.full((groups, *array.shape[1:]), np.nan) for name, array in like.items()}

    def finalise(self, state: State) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
        """See `Statistic`."""
        return {name: ((), state[name]) for name in ("minimum", "maximum")}

    @staticmethod
    def _slab(values: Floats, rows: Rows, dropped: Sequence[int]) -> State:
        axes = tuple(dropped)
        return {
            "minimum": np.fmin.reduce(np.fmin.reduceat(values, rows.begins, axis=0), axis=axes),
            "maximum": np.fmax.reduce(np.fmax.reduceat(values, rows.begins, axis=0), axis=axes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many values lie in each of equal bins; those outside lie in the first or the last.

    Quantiles read off it are wrong by less than the width of a bin, for values that are within.

    Raises:
        ConfigError: the range is empty, or there are no bins.
    """

    low: float
    high: float
    bins: int = 256

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ConfigError(f"a histogram needs a range, not {self.low} to {self.high}")
        if not 1 <= self.bins <= 2**16:
            raise ConfigError(f"a histogram has 1 to {2**16} bins, not {self.bins}")

    def chunk(self, values: NDArray[Any], rows: Rows, dropped: Sequence[int]) -> State:
        """See `Statistic`."""
        return _gather(values, rows, dropped, self._slab, self.combine)

    def combine(self, one: State, other: State) -> State:
        """See `Statistic`."""
        return {"bins": one["bins"] + other["bins"]}

    def empty(self, like: State, groups: int) -> dict[str, NDArray[Any]]:
        """See `Statistic`."""
        return _zeros(like, groups)

    def finalise(self, state: State) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
        """See `Statistic`."""
        return {"histogram": (("bin",), state["bins"])}

    def edges(self) -> Floats:
        """Where bins begin and end, [bins + 1]."""
        return np.linspace(self.low, self.high, self.bins + 1)

    def quantile(self, counts: NDArray[np.int64], at: float) -> Floats:
        """The quantile of histograms [..., bin], linear within a bin; NaN where all are empty."""
        summed = np.cumsum(counts, axis=-1)
        total = summed[..., -1]
        aim = at * total
        # Empty bins before the first value have reached a share of nothing, and hold no quantile.
        short = summed < np.maximum(aim, 0.5)[..., None]
        bin_ = np.minimum(short.sum(axis=-1), self.bins - 1)
        inside = np.take_along_axis(counts, bin_[..., None], axis=-1)[..., 0]
        before = np.take_along_axis(summed, bin_[..., None], axis=-1)[..., 0] - inside
        part = np.clip((aim - before) / np.maximum(inside, 1), 0, 1)
        value = self.low + (bin_ + part) * (self.high - self.low) / self.bins
        return np.where(total > 0, value, np.nan)

    def _slab(self, values: Floats, rows: Rows, dropped: Sequence[int]) -> State:
        kept = [axis for axis in range(1, values.ndim) if axis not in dropped]
        shape = [values.shape[axis] for axis in kept]
        cells = np.arange(prod(shape)).reshape(
            [values.shape[axis] if axis in kept else 1 for axis in range(1, values.ndim)]
        )
        known = np.isfinite(values)
        scaled = (np.where(known, values, self.low) - self.low) * (
            self.bins / (self.high - self.low)
        )
        bins = np.clip(scaled, 0, self.bins - 1).astype(np.int64)
        place = rows.groups.reshape(-1, *[1] * (values.ndim - 1)) * cells.size + cells
        size = rows.count * cells.size * self.bins
        counted = np.bincount((place * self.bins + bins)[known], minlength=size)
        return {"bins": counted.reshape(rows.count, *shape, self.bins)}


def _gather(
    values: NDArray[Any],
    rows: Rows,
    dropped: Sequence[int],
    slab_state: Callable[[Floats, Rows, Sequence[int]], State],
    combine: Callable[[State, State], State],
    axis: int = 1,
) -> State:
    """The state of values, cut from `axis` on into slabs that the processor's cache holds."""
    size = values.size * np.dtype(np.float64).itemsize
    if size <= SLAB_BYTES or axis >= values.ndim - 1:  # the last axis is never cut
        return slab_state(values.astype(np.float64), rows, dropped)
    length = values.shape[axis]
    thickness = max(1, SLAB_BYTES * length // size)
    parts = [
        _gather(
            values[(slice(None),) * axis + (slice(begin, begin + thickness),)],
            rows,
            dropped,
            slab_state,
            combine,
            axis + 1,
        )
        for begin in range(0, length, thickness)
    ]
    if axis in dropped:
        return fold(combine, parts)
    place = axis - sum(each < axis for each in dropped)
    return {name: np.concatenate([part[name] for part in parts], axis=place) for name in parts[0]}


def _drop_moments(state: State, dropped: Sequence[int]) -> State:
    """Moments put together along axes."""
    axes = tuple(dropped)
    count, mean, squares = state["count"], state["mean"], state["squares"]
    total = count.sum(axis=axes, keepdims=True)
    overall = (count * mean).sum(axis=axes, keepdims=True) / np.maximum(total, 1)
    between = (count * np.square(mean - overall)).sum(axis=axes)
    return {
        "count": total.squeeze(axes),
        "mean": overall.squeeze(axes),
        "squares": squares.sum(axis=axes) + between,
    }


def _zeros(like: State, groups: int) -> dict[str, NDArray[Any]]:
    return {name: np.zeros((groups, *array.shape[1:]), array.dtype) for name, array in like.items()}
