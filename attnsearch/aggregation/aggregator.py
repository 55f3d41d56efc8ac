"""Reductions of scans, from what was kept of earlier ones where they are the same."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from attnsearch.aggregation.algebra import Moments, State, Statistic
from attnsearch.aggregation.cache import Entry, digest_of, load, save, together
from attnsearch.aggregation.groups import Grouping
from attnsearch.aggregation.planning import Plan, plan_of
from attnsearch.aggregation.quantities import Quantity
from attnsearch.aggregation.reduction import Partial, Reduction, piece_state, put_together
from attnsearch.axes import SAMPLE
from attnsearch.errors import MetricError
from attnsearch.scheduling import THREADED, Advance, Runner
from attnsearch.store.reader import Source, source_of

_FORMAT: Final = 1
"""Raised whenever states of the same key would be others."""

Watch = Callable[[int], AbstractContextManager[Advance]]
"""Given how many pieces will be read, yields what is told of each."""


@contextmanager
def _unwatched(pieces: int) -> Iterator[Advance]:
    del pieces
    yield lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregator:
    """Reduces quantities of scans: where tasks run, who watches, and what is kept for next time."""

    runner: Runner = field(default=THREADED)
    watch: Watch = _unwatched
    worth_keeping: int = 64 * 2**20
    """Bytes that a reduction reads at least for its state to be kept in the store."""

    def __call__(
        self,
        scan: xr.Dataset,
        quantity: Quantity,
        keep: Sequence[str],
        statistics: Sequence[Statistic] = (Moments(),),
    ) -> xr.Dataset:
        """What statistics say of a quantity over all maps of a scan.

        `keep` names the axes that remain, in this order: dimensions of the quantity, or coordinates
        of samples, whose different values appear in order of first appearance. All other axes are
        reduced. Values that are NaN are left out; of what has no other the mean is NaN.

        Of a scan as `open_scan` gives it, the state is kept in the store if that can be written; a
        scan that has grown since is read only where it has. The last bits of a result depend on
        where a scan was cut: numbers agree to 1e-12 of their size, not in every bit.

        Raises:
            MetricError: the quantity or an axis does not exist, or there are no samples.
            StoreError: what is read is damaged.
        """
        reduction = Reduction(
            values=quantity.of(scan), keep=tuple(keep), statistics=tuple(statistics)
        )
        if not scan.sizes[SAMPLE]:
            raise MetricError("there are no samples")
        grouping = reduction.grouping()
        inputs = quantity.inputs(scan)
        source = source_of(scan, inputs)
        plan = plan_of(reduction, grouping, inputs, source)
        if source is None or source.storage.derived is None or plan.bytes < self.worth_keeping:
            return reduction.result(grouping, self._read(reduction, grouping.codes))
        key = tokenize(
            _FORMAT,
            (source.scan, source.fixed.fingerprint),
            (quantity, reduction.keep, reduction.statistics),
        )
        kept = load(source.storage.derived, key)
        found = None if kept is None else _recalled(kept, source, reduction, grouping)
        rest = source if kept is None or found is None else source.without(kept.blocks)
        if rest.records:
            found = self._continued(found, rest, quantity, reduction, grouping, source.samples)
            save(source.storage.derived, key, _entry_of(found, source, grouping))
        assert found is not None  # what has samples has blocks
        return reduction.result(grouping, found)

    def plan(
        self,
        scan: xr.Dataset,
        quantity: Quantity,
        keep: Sequence[str],
        statistics: Sequence[Statistic] = (Moments(),),
    ) -> Plan:
        """What it would take to call this, were nothing kept; raises as the call does."""
        reduction = Reduction(
            values=quantity.of(scan), keep=tuple(keep), statistics=tuple(statistics)
        )
        inputs = quantity.inputs(scan)
        return plan_of(reduction, reduction.grouping(), inputs, source_of(scan, inputs))

    def _read(self, reduction: Reduction, codes: NDArray[np.intp]) -> Partial:
        with self.watch(reduction.pieces) as advance:
            return reduction.partial(codes, self.runner, advance)

    def _continued(
        self,
        found: Partial | None,
        rest: Source,
        quantity: Quantity,
        reduction: Reduction,
        grouping: Grouping,
        samples: NDArray[np.int64],
    ) -> Partial | None:
        """A state with the rest of the blocks; `samples` are those that `grouping` is of."""
        new = np.isin(samples, rest.samples)
        if not new.any():
            return found  # all of them are flagged
        others = replace(reduction, values=quantity.of(rest.open()))
        read = self._read(others, grouping.codes[new])
        return read if found is None else put_together(reduction.statistics, found, read)


def _entry_of(found: Partial | None, source: Source, grouping: Grouping) -> Entry:
    assert found is not None
    _, first = np.unique(grouping.codes, return_index=True)
    return Entry(
        blocks={block: digest_of(record) for block, record in source.records.items()},
        together=together(grouping.codes),
        samples=source.samples[first],
        states=found.states,
    )


def _recalled(
    kept: Entry, source: Source, reduction: Reduction, grouping: Grouping
) -> Partial | None:
    """The state of an entry in the groups of a scan; None if blocks or groups are others now."""
    if any(
        block not in source.records or digest_of(source.records[block]) != digest
        for block, digest in kept.blocks.items()
    ):
        return None
    inside = np.isin(source.samples // source.layout.block, list(kept.blocks))
    codes, samples = grouping.codes[inside], source.samples[inside]
    if not len(codes):
        return None
    groups = codes[np.searchsorted(samples, kept.samples).clip(max=len(codes) - 1)]
    order = np.argsort(groups)
    # What was not computed by this very program may have any form.
    nothing = np.full((1, *reduction.values.shape[1:]), np.nan)
    example = piece_state(nothing, np.zeros(1, np.intp), reduction.statistics, reduction.dropped)
    same = [_shapes(state, len(groups)) for state in example.states] == [
        {name: array.shape for name, array in state.items()} for state in kept.states
    ]
    if not (
        same
        and together(codes) == kept.together
        and np.array_equal(groups[order], np.unique(codes))
    ):
        return None
    return Partial(
        groups=groups[order],
        states=tuple(
            {name: array[order] for name, array in state.items()} for state in kept.states
        ),
    )


def _shapes(state: State, groups: int) -> dict[str, tuple[int, ...]]:
    return {name: (groups, *array.shape[1:]) for name, array in state.items()}
