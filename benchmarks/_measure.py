"""One row of the results: a call computed in every way, each checked and then timed."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from _cases import Case, Inputs, draw
from _rivals import COMPILED, GPU_ONLY, OURS, RIVALS, Call, Results, Rival
from _timing import Spread, input_sets, peak_bytes, time_calls
from torch import Tensor

from attnsearch_kernels import Backend, SketchedAttention, resolve_backend
from attnsearch_kernels.cost import (
    CallShape,
    attention_floor_microseconds,
    find_device,
    floor_microseconds,
)
from attnsearch_kernels.reference import reference_float64
from attnsearch_kernels.tolerance import largest_errors, violations

CHECKED_ENTRIES: Final = 2**26
"""Map entries that are computed in float64 to check a call; half a GiB a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What one way to compute a call gives and costs."""

    computes: tuple[str, ...] = ()
    """Fields of `SketchedAttention`."""
    wrong: bool = False
    note: str | None = None
    """Why there is no time; None where there is one."""
    largest_errors: dict[str, float] | None = None
    timed_by: str | None = None
    """`processor` (CPU, one thread), `graph` (replayed) or `events` (launches included)."""
    microseconds: Spread | None = None
    over_plain: Spread | None = None
    """Ratio to plain attention within a round."""
    floor_percent: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The results of one case."""

    shape: str
    label: str
    sizes: CallShape
    image_keys: int
    dtype: str
    ragged: bool
    input_sets: int
    backend: str
    configuration: dict[str, Any] | None
    """The tiles that ran, where Triton did."""
    floor: dict[str, float] | None
    """Microseconds: of attention with its sketch, of its parts, and of plain attention."""
    variants: dict[str, Variant]

    def failures(self) -> list[str]:
        """Variants that gave wrong results, and ours if it gave none."""
        return [
            f"{name} {variant.note}"
            for name, variant in self.variants.items()
            if variant.wrong or (name == "sketched" and variant.microseconds is None)
        ]

    def median(self, name: str) -> float | None:
        """Microseconds of a variant; None where it was not timed."""
        found = self.variants.get(name)
        return found.microseconds.median if found and found.microseconds else None


def measure(case: Case, device: str, *, rounds: int, with_compiled: bool) -> Row:
    """Check and time all variants of a case."""
    torch.compiler.reset()
    sets = [draw(case, device, seed=0)]
    tensors = (sets[0].query, sets[0].key, sets[0].value)
    count = input_sets(device, sum(each.numel() * each.element_size() for each in tensors))
    sets += [draw(case, device, seed=seed) for seed in range(1, count)]
    gate = Gate(sets[0])
    variants: dict[str, Variant] = {}
    calls: dict[str, list[Call]] = {}
    for name, rival in RIVALS.items():
        if (device == "cpu" and name in GPU_ONLY) or (name in COMPILED and not with_compiled):
            continue
        variants[name], ready = _admit(name, rival, sets, gate)
        if ready:
            calls[name] = ready
    floor = _floor(case, sets[0].mask, device)
    samples, unrecorded = time_calls(calls, rounds, device)
    for name, microseconds in samples.items():
        by = "processor" if device == "cpu" else "events" if name in unrecorded else "graph"
        baseline = samples.get("plain")
        variants[name] = _timed(variants[name], by, microseconds, baseline, floor)
    backend = resolve_backend(sets[0].query, sets[0].roles, sets[0].basis)
    return Row(
        shape=case.name,
        label=case.label,
        sizes=case.shape,
        image_keys=case.image_keys,
        dtype=str(case.dtype).removeprefix("torch."),
        ragged=case.ragged,
        input_sets=count,
        backend=backend.value,
        configuration=_configuration(sets[0]) if backend == Backend.TRITON else None,
        floor=floor,
        variants=variants,
    )


class Gate:
    """Lets nothing pass that differs from the definition, in float64, on the same inputs."""

    def __init__(self, inputs: Inputs) -> None:
        batch, heads, tokens, _ = inputs.query.shape
        maps = max(1, CHECKED_ENTRIES // (tokens * inputs.key.shape[2]))
        device = inputs.query.device
        # Of large calls some maps, spread over all, are checked.
        self._rows = _spread(batch, maps).to(device)
        self._heads = _spread(heads, maps // len(self._rows)).to(device)
        part = inputs.part(self._rows, self._heads)
        self._value, self._dtype = part.value, part.query.dtype
        on_gpu = device.type == "cuda"
        self._arithmetic = Backend.TRITON if on_gpu else Backend.TORCH
        self._exact = reference_float64(
            part.query,
            part.key,
            part.value,
            part.roles,
            part.basis,
            scale=part.scale,
            key_mask=part.mask,
        )

    def errors(self, results: Results) -> dict[str, float]:
        """Largest error of every field that is there; NaN of one that is not finite somewhere."""
        found = {name: self._part(tensor) for name, tensor in results.items()}
        checked = SketchedAttention(**{**self._exact._asdict(), **found})
        errors = largest_errors(checked, self._exact, self._value)
        return {
            name: errors[name] if tensor.isfinite().all() else float("nan")
            for name, tensor in results.items()
        }

    def violations(self, errors: dict[str, float]) -> dict[str, float]:
        """The errors that are too large."""
        return violations(errors, self._dtype, self._arithmetic)

    def _part(self, tensor: Tensor) -> Tensor:
        return tensor[self._rows][:, self._heads]


def _spread(size: int, most: int) -> Tensor:
    """At most so many of the indices below `size`, the first and the last among them."""
    count = min(size, max(1, most))
    return torch.arange(count) * (size - 1) // max(1, count - 1)


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Tensors that torch allocates hold NaN, so that a result left unwritten is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torch.use_deterministic_algorithms(False)


def _admit(
    name: str, rival: Rival, sets: list[Inputs], gate: Gate
) -> tuple[Variant, list[Call] | None]:
    """A variant with its errors, and its calls if they may be timed."""
    device = sets[0].query.device.type
    try:
        calls = [rival(inputs) for inputs in sets]
        # Asking for deterministic algorithms would change which kernel torch itself takes.
        with poisoned_memory() if name in OURS else warnings.catch_warnings(action="ignore"):
            results = calls[0]()
        errors = gate.errors(results)
        computes = tuple(results)
        del results
        if wrong := gate.violations(errors):
            note = ", ".join(f"{field} is off by {error:.2g}" for field, error in wrong.items())
            return Variant(computes=computes, wrong=True, note=note), None
        memory = peak_bytes(calls[0], device)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return Variant(note="out of memory"), None
    except Exception as error:  # That a rival cannot take a call is a result.
        first_line = str(error).strip().partition("\n")[0]
        return Variant(note=f"{type(error).__name__}: {first_line}"), None
    errors = {field: float(f"{error:.2g}") for field, error in errors.items()}
    return Variant(computes=computes, largest_errors=errors, peak_bytes=memory), calls


def _timed(
    variant: Variant,
    timed_by: str,
    microseconds: np.ndarray,
    baseline: np.ndarray | None,
    floor: dict[str, float] | None,
) -> Variant:
    """The variant with what its rounds say."""
    spread = Spread.of(microseconds)
    percent = None
    if floor:
        least = floor["sketched" if "sketch" in variant.computes else "plain"]
        percent = round(100 * least / spread.median, 1)
    return replace(
        variant,
        timed_by=timed_by,
        microseconds=spread,
        over_plain=None if baseline is None else Spread.of(microseconds / baseline),
        floor_percent=percent,
    )


def _floor(case: Case, mask: Tensor | None, device: str) -> dict[str, float] | None:
    """None for a device whose rates are not known."""
    known = find_device(torch.cuda.get_device_name()) if device == "cuda" else None
    if known is None:
        return None
    shape, itemsize = case.shape, case.dtype.itemsize
    if mask is not None:
        # Every part is linear in the keys, and masked ones need not be read.
        shape = replace(shape, keys=round(float(mask.sum(1).float().mean())))
    plain = attention_floor_microseconds(shape, known, itemsize=itemsize)
    # Most keys of joint attention have no role and cost the sketch nothing, which the other floor
    # does not know; what the text costs it is left out.
    least = plain if case.image_keys else floor_microseconds(shape, known, itemsize=itemsize)
    parts = {"sketched": least.microseconds, "plain": plain.microseconds, **asdict(least)}
    return {name: round(microseconds, 2) for name, microseconds in parts.items()}


def _configuration(inputs: Inputs) -> dict[str, Any]:
    from attnsearch_kernels.triton.operators import configuration_of

    row = asdict(configuration_of(inputs.query, inputs.key))
    # Infinity is no JSON.
    return {name: value for name, value in row.items() if name != "keys"}
