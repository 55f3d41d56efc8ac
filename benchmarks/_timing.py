"""How long calls take, taking turns so that all see the same machine.

On a GPU the calls of a variant go round several sets of inputs, more together than its cache
holds, recorded in a CUDA graph where that is possible.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from time import process_time
from typing import Any, Final, Self

import numpy as np
import torch

Call = Callable[[], object]
Samples = dict[str, np.ndarray]
"""Microseconds of one call of every variant, in every round."""

WARM_UP: Final = 3
CACHES: Final = 4
"""Inputs of a variant together, in units of the cache."""
REPLAY_MICROSECONDS: Final = 2000.0
"""A timed stretch is at least this long, for the resolution of events and the gap before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle of the rounds, and what 20 % and 80 % of them are below."""

    median: float
    p20: float
    p80: float

    @classmethod
    def of(cls, values: np.ndarray) -> Self:
        """Rounded to four digits."""
        low, middle, high = (float(f"{x:.4g}") for x in np.quantile(values, [0.2, 0.5, 0.8]))
        return cls(median=middle, p20=low, p80=high)


def input_sets(device: str, input_bytes: int) -> int:
    """How many sets of inputs exceed the cache together; one on a CPU."""
    if device == "cpu":
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, ceil(CACHES * cache / input_bytes))


def time_calls(
    calls: Mapping[str, Sequence[Call]], rounds: int, device: str
) -> tuple[Samples, set[str]]:
    """Times of all variants, and the variants that could not be recorded in a graph.

    `calls` has one call per set of inputs.
    """
    if device == "cpu":
        alone = {name: _by_processor(each[0]) for name, each in calls.items()}
        return _interleave(alone, rounds), set()
    # Their temporary tensors may lie over each other: one graph runs at a time.
    pool = torch.cuda.graph_pool_handle()
    measures, unrecorded = {}, set()
    for name, each in calls.items():
        repeats = _repeats(each)
        try:
            run = _recorded(each, repeats, pool)
        except RuntimeError:
            torch.cuda.synchronize()
            run = _in_turn(each, repeats)
            unrecorded.add(name)
        measures[name] = _by_events(run, repeats * len(each))
    return _interleave(measures, rounds), unrecorded


def peak_bytes(call: Call, device: str) -> int | None:
    """Memory of the GPU that a call takes at most, its results included; None on a CPU."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _interleave(measures: dict[str, Callable[[], float]], rounds: int) -> Samples:
    samples: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(WARM_UP + rounds):
        for name, measure in measures.items():
            microseconds = measure()
            if turn >= WARM_UP:
                samples[name].append(microseconds)
    return {name: np.array(values) for name, values in samples.items()}


def _by_processor(call: Call) -> Callable[[], float]:
    """Time of the processor, not of the wall: others may be using the machine too."""

    def measure() -> float:
        start = process_time()
        call()
        return 1e6 * (process_time() - start)

    return measure


def _by_events(run: Call, calls: int) -> Callable[[], float]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def measure() -> float:
        start.record()
        run()
        end.record()
        end.synchronize()
        return 1e3 * start.elapsed_time(end) / calls

    return measure


def _in_turn(calls: Sequence[Call], repeats: int) -> Call:
    def run() -> None:
        for _ in range(repeats):
            for call in calls:
                call()

    return run


def _repeats(calls: Sequence[Call]) -> int:
    """How often all calls must run to fill a timed stretch."""
    once = _by_events(_in_turn(calls, 1), 1)
    shortest = min(once() for _ in range(WARM_UP))
    return max(1, ceil(REPLAY_MICROSECONDS / shortest))


def _recorded(calls: Sequence[Call], repeats: int, pool: Any) -> Call:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        _in_turn(calls, repeats)()
    return graph.replay
