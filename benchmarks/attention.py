"""What does the sketch add to attention on a CPU?

Times `sketch_attention` against plain attention and against keeping the map and reducing it once
per statistic, interleaved in one process so that all three see the same machine. Every variant is
checked against the float64 definition first. Run as `python benchmarks/attention.py`.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from _machine import describe_machine
from torch import Tensor
from torch.nn import functional

from attnsearch_kernels import SketchedAttention, dct2, resolve_backend, sketch_attention
from attnsearch_kernels.cost import CallShape
from attnsearch_kernels.reference import reference_float64
from attnsearch_kernels.tolerance import largest_errors, violations

THREADS = 1
WARM_UP = 3
SHAPES = {
    "small DiT": CallShape(batch=64, heads=4, tokens=64, keys=12, channels=24, roles=8, basis=36),
    "paper DiT": CallShape(batch=16, heads=6, tokens=256, keys=20, channels=64, roles=8, basis=64),
    "PixArt": CallShape(batch=2, heads=16, tokens=1024, keys=120, channels=72, roles=8, basis=64),
}
Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]


def arguments_of(shape: CallShape, *, ragged: bool) -> Arguments:
    """Random query, key, value, roles, basis and mask; ragged texts are half to fully long."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(shape.batch, shape.heads, length, shape.channels, generator=generator)
        for length in (shape.tokens, shape.keys, shape.keys)
    )
    role = torch.randint(shape.roles, (shape.batch, shape.keys), generator=generator)
    side, order = round(shape.tokens**0.5), round(shape.basis**0.5)
    lengths = torch.randint(shape.keys // 2, shape.keys + 1, (shape.batch, 1), generator=generator)
    mask = torch.arange(shape.keys) < lengths if ragged else None
    roles = functional.one_hot(role, shape.roles).float()
    return query, key, value, roles, dct2(side, side, order), mask


def plain(arguments: Arguments, scale: float) -> Tensor:
    """The framework's attention: no statistics."""
    query, key, value, _, _, mask = arguments
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=None if mask is None else mask[:, None, None], scale=scale
    )


def naive(arguments: Arguments, scale: float) -> SketchedAttention:
    """The map in memory, and one reduction of it per statistic."""
    query, key, value, roles, basis, mask = arguments
    scores = query @ key.mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    attention = scores.softmax(-1)
    role_mass = attention @ roles[:, None]
    return SketchedAttention(
        output=attention @ value,
        sketch=basis.T @ role_mass,
        entropy=torch.special.entr(attention).sum(-1),
        peak=attention.amax(-1),
        energy=role_mass.square().sum(-2),
    )


def sketched(arguments: Arguments, scale: float) -> SketchedAttention:
    """The operator under test."""
    *tensors, mask = arguments
    query, key, value, roles, basis = tensors
    return sketch_attention(query, key, value, roles, basis, scale=scale, key_mask=mask)


def check(arguments: Arguments, scale: float) -> dict[str, float]:
    """Errors of the operator against the definition; refuses to time a wrong result."""
    query, key, value, roles, basis, mask = arguments
    exact = reference_float64(query, key, value, roles, basis, scale=scale, key_mask=mask)
    for variant in (naive, sketched):
        errors = largest_errors(variant(arguments, scale), exact, value)
        if wrong := violations(errors, query.dtype):
            raise SystemExit(f"{variant.__name__} differs from the definition: {wrong}")
    torch.testing.assert_close(plain(arguments, scale).double(), exact.output, atol=1e-5, rtol=0)
    return errors


def time_interleaved(
    variants: dict[str, Callable[[], object]], rounds: int
) -> dict[str, np.ndarray]:
    """Seconds of every variant in every round, the variants taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(WARM_UP + rounds):
        for name, variant in variants.items():
            start = perf_counter()
            variant()
            elapsed = perf_counter() - start
            if turn >= WARM_UP:
                seconds[name].append(elapsed)
    return {name: np.array(values) for name, values in seconds.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Time relative to another variant."""

    median: float
    min: float
    p20: float
    """20 % of the rounds are below; ratios within a round."""
    p80: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The results at one shape."""

    shape: str
    sizes: CallShape
    ragged: bool
    median_ms: dict[str, float]
    sketched_over_plain: Ratio
    naive_over_plain: Ratio
    sketched_over_naive: Ratio
    largest_errors: dict[str, float]


def ratio(seconds: np.ndarray, baseline: np.ndarray) -> Ratio:
    """Ratio of the medians, of the minima, and its spread over the rounds."""
    low, high = np.quantile(seconds / baseline, [0.2, 0.8])
    return Ratio(
        median=round(float(np.median(seconds) / np.median(baseline)), 3),
        min=round(float(seconds.min() / baseline.min()), 3),
        p20=round(float(low), 3),
        p80=round(float(high), 3),
    )


def measure(name: str, shape: CallShape, *, ragged: bool, rounds: int) -> Row:
    """One row of the results."""
    arguments, scale = arguments_of(shape, ragged=ragged), shape.channels**-0.5
    errors = check(arguments, scale)
    variants = (plain, naive, sketched)
    seconds = time_interleaved(
        {variant.__name__: partial(variant, arguments, scale) for variant in variants}, rounds
    )
    return Row(
        shape=name,
        sizes=shape,
        ragged=ragged,
        median_ms={key: round(1e3 * float(np.median(t)), 3) for key, t in seconds.items()},
        sketched_over_plain=ratio(seconds["sketched"], seconds["plain"]),
        naive_over_plain=ratio(seconds["naive"], seconds["plain"]),
        sketched_over_naive=ratio(seconds["sketched"], seconds["naive"]),
        largest_errors={key: float(f"{error:.2g}") for key, error in errors.items()},
    )


def report(rows: list[Row]) -> None:
    """Time relative to plain attention, of the medians and in brackets of the minima."""
    columns = "{:10} {:7} {:>9} {:>17} {:>14}"
    print(columns.format("shape", "text", "plain ms", "sketched / plain", "naive / plain"))
    for row in rows:
        ratios = (row.sketched_over_plain, row.naive_over_plain)
        cells = (f"{each.median:.2f} ({each.min:.2f})" for each in ratios)
        text = "ragged" if row.ragged else "full"
        print(columns.format(row.shape, text, f"{row.median_ms['plain']:.2f}", *cells))


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="timed rounds per shape")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "attention-cpu.json",
        help="where the results are written",
    )
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    with torch.inference_mode():
        rows = [
            measure(name, shape, ragged=ragged, rounds=options.rounds)
            for name, shape in SHAPES.items()
            for ragged in (False, True)
        ]
    report(rows)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "backend": resolve_backend("cpu"),
        "dtype": "float32",
        "threads": THREADS,
        "rounds": options.rounds,
        "rows": [asdict(row) for row in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
