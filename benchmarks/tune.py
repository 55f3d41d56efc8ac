"""Find the fastest tiles of the Triton kernels on the GPU of this machine.

For every bucket of dtype, head width and text length, the candidates are compiled, on all cores;
those that fit without spilling and agree with the plain path are timed in turns on inputs larger
than the cache. The winners
replace the rows of this architecture in `configurations.toml`; all timings go to
`benchmarks/results/tune-<gpu>.json`. Needs torch, triton and numpy:

    PYTHONPATH=kernels python benchmarks/tune.py
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product, repeat
from pathlib import Path

import numpy as np
import torch
import triton
from _cases import Case, Inputs, draw
from _timing import input_sets, time_calls

from attnsearch_kernels import Backend, SketchedAttention, sketch_attention
from attnsearch_kernels.machine import describe_machine
from attnsearch_kernels.tolerance import largest_errors, violations
from attnsearch_kernels.triton.configurations import Configuration, Kernel
from attnsearch_kernels.triton.fused import fused_kernel
from attnsearch_kernels.triton.launch import Launch, plan_attention
from attnsearch_kernels.triton.long import long_kernel
from attnsearch_kernels.triton.operators import architecture_of
from attnsearch_kernels.triton.resources import compile_ahead

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "kernels" / "attnsearch_kernels" / "triton" / "configurations.toml"
ROUNDS = 15
WIDTHS = (64, 80, 128)
TEXTS = {"half": (32, 64, 128, math.inf), "float32": (32, math.inf)}
LONG_TEXT = 300
"""Stands for all texts too long for a bucket with a bound."""
DTYPES = {"half": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Calls that one row of the table serves."""

    dtype: str
    channels: int
    keys: float

    @property
    def case(self) -> Case:
        """The call it is timed with: the widest, longest it serves, enough of it for the chip."""
        text = LONG_TEXT if math.isinf(self.keys) else int(self.keys)
        small = text <= 64
        return Case(
            name="tune",
            batch=64 if small else 4,
            heads=8 if small else 16,
            side=16 if small else 64,
            text=text,
            channels=self.channels,
            dtype=DTYPES[self.dtype],
            ragged=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A candidate and how long it took."""

    configuration: Configuration
    microseconds: float


def candidates(bucket: Bucket, architecture: str, source: str) -> Iterator[Configuration]:
    """Every combination of tiles worth a try for a bucket."""
    half = bucket.dtype == "half"
    shapes = ((64, 4), (64, 8), (128, 4), (128, 8)) if half else ((32, 4), (64, 4), (128, 8))
    kernels: list[tuple[Kernel, int]] = []
    if not math.isinf(bucket.keys):
        kernels.append(("fused", int(bucket.keys)))
    if bucket.keys > 64 or not half:
        kernels += [("long", size) for size in ((32, 64, 128) if half else (16, 32))]
    for (kernel, block_keys), shape, stages in product(kernels, shapes, (2, 3) if half else (1,)):
        yield Configuration(
            architecture=architecture,
            dtype=bucket.dtype,
            channels=bucket.channels,
            keys=bucket.keys,
            kernel=kernel,
            block_queries=shape[0],
            block_keys=block_keys,
            warps=shape[1],
            stages=stages,
            source=source,
        )


def fits(bucket: Bucket, configuration: Configuration, shared_memory: int) -> bool:
    """Whether a candidate compiles for its architecture without spilling; needs no GPU."""
    case = bucket.case
    launches = planned(draw_meta(case), configuration)[1]
    main = next(each for each in launches if each.kernel in (fused_kernel, long_kernel))
    try:
        found = compile_ahead(main, configuration.architecture)
    except Exception as error:  # whatever a compiler says of a tile it cannot make
        print(f"{configuration}: {type(error).__name__}", flush=True)
        return False
    return found.spilled == 0 and found.shared <= shared_memory


def draw_meta(case: Case) -> Inputs:
    """The tensors of a call without their contents."""
    drawn = draw(replace(case, batch=1), "cpu", seed=0)
    fields = {name: getattr(drawn, name) for name in ("query", "key", "value", "roles", "basis")}
    meta = {name: tensor.to("meta") for name, tensor in fields.items()}
    mask = None if drawn.mask is None else drawn.mask.to("meta")
    return replace(drawn, **meta, mask=mask)


def fitting(
    buckets: list[Bucket], architecture: str, source: str, shared_memory: int
) -> dict[Bucket, list[Configuration]]:
    """The candidates that fit, compiled by as many processes as there are cores."""
    pairs = [(b, each) for b in buckets for each in candidates(b, architecture, source)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        able = pool.map(fits, *zip(*pairs, strict=True), repeat(shared_memory), chunksize=1)
        kept = [pair for pair, fit in zip(pairs, able, strict=True) if fit]
    print(f"{len(kept)} of {len(pairs)} candidates fit", flush=True)
    return {bucket: [each for owner, each in kept if owner == bucket] for bucket in buckets}


def planned(inputs: Inputs, configuration: Configuration) -> tuple[SketchedAttention, list[Launch]]:
    """The operator with given tiles, not yet started."""
    return plan_attention(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.roles,
        inputs.basis,
        scale=inputs.scale,
        key_mask=inputs.mask,
        architecture=configuration.architecture,
        configuration=configuration,
    )


def call(inputs: Inputs, configuration: Configuration) -> SketchedAttention:
    """The operator with given tiles."""
    result, launches = planned(inputs, configuration)
    for launch in launches:
        launch.start()
    return result


def is_right(inputs: Inputs, configuration: Configuration) -> bool:
    """Whether a candidate agrees with the plain path."""
    expected = sketch_attention(
        inputs.query,
        inputs.key,
        inputs.value,
        inputs.roles,
        inputs.basis,
        scale=inputs.scale,
        key_mask=inputs.mask,
        backend=Backend.TORCH,
    )
    wanted = SketchedAttention(*(x.double() for x in expected))
    errors = largest_errors(call(inputs, configuration), wanted, inputs.value)
    return not violations(errors, inputs.query.dtype, Backend.TRITON)


def tune(bucket: Bucket, able: list[Configuration]) -> list[Timed]:
    """The candidates of a bucket, fastest first."""
    case = bucket.case
    first = draw(case, "cuda", seed=0)
    sets = input_sets("cuda", sum(x.nbytes for x in (first.query, first.key, first.value)))
    inputs = [first, *(draw(case, "cuda", seed=seed) for seed in range(1, sets))]
    right = [each for each in able if is_right(first, each)]
    if len(right) < len(able):
        print(f"{bucket}: {len(able) - len(right)} candidates are wrong", flush=True)
    calls: dict[str, list[Callable[[], object]]] = {
        str(index): [partial(call, x, each) for x in inputs] for index, each in enumerate(right)
    }
    samples, _ = time_calls(calls, ROUNDS, "cuda")
    timed = [
        Timed(configuration=right[int(index)], microseconds=float(np.median(times)))
        for index, times in samples.items()
    ]
    return sorted(timed, key=lambda each: each.microseconds)


def as_toml(row: Configuration) -> str:
    """One row, as `configurations.toml` spells it."""
    cells = asdict(row)
    head = f"[[{cells.pop('architecture')}.{cells.pop('dtype')}]]"
    if math.isinf(row.keys):
        del cells["keys"]
    return "\n".join([head, *(f"{name} = {json.dumps(cell)}" for name, cell in cells.items())])


def replace_rows(text: str, rows: list[Configuration]) -> str:
    """The table with an architecture's rows replaced.

    Rows are ordered by texts first, so that a wider bucket never hides a narrower one.
    """
    comment, *blocks = re.split(r"^(?=\[\[)", text, flags=re.MULTILINE)
    kept = [block.strip() for block in blocks if not block.startswith(f"[[{rows[0].architecture}.")]
    ordered = sorted(rows, key=lambda row: (row.dtype, row.keys, row.channels))
    merged = [
        row
        for row, after in zip(ordered, [*ordered[1:], None], strict=True)
        if after is None or not _same_but_width(row, after)
    ]
    return "\n\n".join([comment.strip(), *kept, *map(as_toml, merged)]) + "\n"


def _same_but_width(row: Configuration, wider: Configuration) -> bool:
    cells, others = asdict(row), asdict(wider)
    return all(cells[name] == others[name] for name in cells if name != "channels")


def main() -> None:
    """Tune every bucket, write the table and the results, print the winners."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("tuning needs a GPU, and torch finds none here")
    machine = describe_machine()
    today = datetime.now(UTC).date().isoformat()
    source = f"fastest on {machine['gpu']}, {today}"
    device = torch.cuda.current_device()
    architecture = architecture_of(torch.device("cuda", device))
    properties = triton.runtime.driver.active.utils.get_device_properties(device)
    shared_memory: int = properties["max_shared_mem"]
    buckets = [
        Bucket(dtype=dtype, channels=channels, keys=keys)
        for dtype, texts in TEXTS.items()
        for keys in texts
        for channels in WIDTHS
    ]
    with torch.inference_mode():
        able = fitting(buckets, architecture, source, shared_memory)
        timings = {bucket: tune(bucket, able[bucket]) for bucket in buckets}
    results = {bucket: timed for bucket, timed in timings.items() if timed}
    winners = [timed[0].configuration for timed in results.values()]
    text = replace_rows(TABLE.read_text(encoding="utf-8"), winners)
    TABLE.write_text(text, encoding="utf-8")
    rows = [
        asdict(each.configuration) | {"microseconds": round(each.microseconds, 2)}
        for timed in results.values()
        for each in timed
    ]
    for row in rows:
        row["keys"] = None if math.isinf(row["keys"]) else row["keys"]
    name = re.sub(r"[^a-z0-9]+", "-", str(machine["gpu"]).lower().removeprefix("nvidia "))
    output = ROOT / "benchmarks" / "results" / f"tune-{name}.json"
    output.write_text(
        json.dumps({"date": today, "machine": machine, "rows": rows}, indent=1) + "\n",
        encoding="utf-8",
    )
    for bucket, timed in results.items():
        best = timed[0]
        print(
            f"{bucket.dtype:8} D {bucket.channels:3} M {bucket.keys:5} {best.microseconds:9.2f} us"
        )
        print(f"    {as_toml(best.configuration).splitlines()[1:]}")


if __name__ == "__main__":
    main()
