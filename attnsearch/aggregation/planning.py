"""What a reduction will take at most, from shapes and records, before anything is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

import dask.array as da
import numpy as np
import xarray as xr

from attnsearch.aggregation.algebra import SLAB_BYTES
from attnsearch.aggregation.groups import Grouping
from attnsearch.aggregation.reduction import TOGETHER, Reduction, piece_state
from attnsearch.axes import SAMPLE
from attnsearch.store.reader import Source
from attnsearch.store.schema import ArraySpec

_INDEX_ENTRY: Final = 16
_SLABS: Final = 10
"""Copies of a slab that are there at once while it is reduced."""
_COPIES: Final = 6
"""Copies of the state of everything that are there at once while results are made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a reduction takes, kept states left aside."""

    values: int
    """Numbers that are reduced."""
    pieces: int
    """Tasks that read."""
    tasks: int
    """Those, and the tasks that put states together."""
    bytes: int
    """Read from the store, at most; 0 of a scan that is not as it was opened."""
    piece_bytes: int
    """Memory of a task that reads, at most."""
    state_bytes: int
    """Memory of all states that are there at once, and of the result, at most."""

    def memory(self, workers: int) -> int:
        """Peak memory of so many workers together, at most; without what the program takes."""
        return workers * (self.piece_bytes + self.state_bytes // self.pieces) + self.state_bytes


def plan_of(
    reduction: Reduction,
    grouping: Grouping,
    inputs: Mapping[str, xr.DataArray],
    source: Source | None,
) -> Plan:
    """The plan of a reduction of what is made of `inputs`, which lie in a store or in memory."""
    values = reduction.values
    samples = values.sizes[SAMPLE]
    lazy = isinstance(values.data, da.Array)
    rows = max(values.data.chunks[0], default=0) if lazy else samples
    one_sample = prod(values.shape[1:]) * values.dtype.itemsize
    read, decoded = 0, 0
    if source is not None:
        specs = {spec.name: spec for spec in source.layout.arrays()}
        for name, part in inputs.items():
            spec = specs[name]
            read += sum(_stored_bytes(source, spec, part, block) for block in source.records)
            # The chunks of one block, as they are stored and as they are, and all that is wanted.
            decoded += 2 * _bound(spec) * _chunks(spec, part)
            decoded += rows * prod(part.shape[1:]) * part.dtype.itemsize
    nothing = np.full((1, *values.shape[1:]), np.nan)
    example = piece_state(nothing, np.zeros(1, np.intp), reduction.statistics, reduction.dropped)
    group = sum(array.nbytes for state in example.states for array in state.values())
    groups = len(np.unique(grouping.codes))
    pieces = reduction.pieces
    states, tasks, level = 0, pieces, min(rows, groups)
    waiting = pieces
    while waiting > 1:
        # On every level they wait until there are enough of them to be put together.
        states += min(waiting, 2 * TOGETHER) * level * group
        waiting = -(-waiting // TOGETHER)
        level = min(level * TOGETHER, groups)
        tasks += waiting
    last_axis = values.shape[-1] if values.ndim > 1 else 1
    number = np.dtype(np.float64).itemsize
    slab = min(max(SLAB_BYTES, rows * last_axis * number), rows * prod(values.shape[1:]) * number)
    return Plan(
        values=values.size,
        pieces=pieces,
        tasks=tasks,
        bytes=read,
        piece_bytes=decoded + rows * one_sample + _SLABS * slab + 4 * min(rows, groups) * group,
        state_bytes=states + _COPIES * max(groups, prod(grouping.shape)) * group,
    )


def _stored_bytes(source: Source, spec: ArraySpec, part: xr.DataArray, block: int) -> int:
    """Bytes read of the file of a block, at most."""
    size = source.records[block].files[spec.file(block)].size
    if spec.shards is None:
        return size
    whole = prod(shard // chunk for shard, chunk in zip(spec.shards, spec.chunks, strict=True))
    return min(size, _chunks(spec, part) * _bound(spec) + whole * _INDEX_ENTRY + 4)


def _chunks(spec: ArraySpec, part: xr.DataArray) -> int:
    """Chunks of a block that hold a part of an array."""
    sizes = zip(spec.dimensions, spec.chunks, spec.shape, strict=True)
    return prod(part.sizes.get(name, 1) for name, chunk, size in sizes if chunk == 1 < size)


def _bound(spec: ArraySpec) -> int:
    """Bytes that a chunk takes compressed, at most (ZSTD_compressBound, and a header)."""
    size = prod(spec.chunks) * np.dtype(spec.dtype).itemsize
    return size + size // 256 + 2**10
