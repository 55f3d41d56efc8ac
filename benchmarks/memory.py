"""Does the peak memory of a scan grow with its number of samples, or of steps?

Scans a checkpoint at its base size, with four times the samples and with four times the steps,
each in a fresh process, and compares by how much the process outgrew its size after loading the
model and scanning one small block. Exits with 1 if a larger scan needs more than the base one and
`SLACK_BYTES`. A scan that held on to what it computes would need hundreds of MiB more.

A scan holds two blocks, the one being sampled and the one being written, each of at most 16 MiB of
sketches but at least one sample: memory is level in the steps as long as the sketches of a single
sample stay below that. The base scan has several blocks, since the allocator takes a few to settle.
Run as `python benchmarks/memory.py`.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from _memory import in_fresh_process, peak_growth
from _workload import ZOO_CHECKPOINT, Workload, versions

from attnsearch_kernels.machine import describe_machine

GROWTH: Final = 4
SLACK_BYTES: Final = 24 * 2**20
"""One and a half blocks of sketches: what the allocator may hold on to or not by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scan."""

    scan: str
    samples: int
    steps: int
    samples_per_block: int
    blocks: int
    maps: int
    sketch_bytes: int
    """Of all sketches, uncompressed: what the scan would hold if it held everything."""
    peak_memory_growth_bytes: list[int]
    """Of every repetition."""

    @property
    def peak(self) -> int:
        """The smallest of the repetitions: the others had less luck with the allocator."""
        return min(self.peak_memory_growth_bytes)


def growth(checkpoint: Path, seeds: int, steps: int, threads: int) -> int:
    """Peak memory of one scan above the process before it, in bytes; for a fresh process."""
    torch.set_num_threads(threads)
    work = Workload.load(checkpoint, seeds=seeds, steps=steps)
    with TemporaryDirectory() as folder:
        work.warm_up().scan(Path(folder))
    with TemporaryDirectory() as folder:
        return peak_growth(lambda: work.scan(Path(folder)))


def measure(name: str, options: argparse.Namespace, *, seeds: int, steps: int) -> Row:
    """One scan, repeated."""
    layout = Workload.load(options.checkpoint, seeds=seeds, steps=steps).plan.layout
    return Row(
        scan=name,
        samples=layout.samples,
        steps=layout.steps,
        samples_per_block=layout.block,
        blocks=layout.blocks,
        maps=layout.maps,
        sketch_bytes=next(spec.bytes for spec in layout.arrays() if spec.name == "sketch"),
        peak_memory_growth_bytes=[
            in_fresh_process(growth, options.checkpoint, seeds, steps, options.threads)
            for _ in range(options.rounds)
        ],
    )


def report(rows: list[Row]) -> None:
    """Peak memory next to the size of what passed through."""
    columns = "{:16} {:>8} {:>6} {:>7} {:>10} {:>13} {:>9}"
    print(columns.format("scan", "samples", "steps", "blocks", "maps", "sketches MiB", "peak MiB"))
    for row in rows:
        sizes = (f"{size / 2**20:.0f}" for size in (row.sketch_bytes, row.peak))
        print(columns.format(row.scan, row.samples, row.steps, row.blocks, f"{row.maps:,}", *sizes))


def main() -> None:
    """Measure, write the results, print the table and the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=ZOO_CHECKPOINT)
    parser.add_argument("--seeds", type=int, default=3, help="images per prompt at the base size")
    parser.add_argument("--steps", type=int, default=14, help="sampler steps at the base size")
    parser.add_argument("--rounds", type=int, default=2, help="processes per scan")
    parser.add_argument("--threads", type=int, default=1, help="threads torch may use")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "memory-cpu.json",
        help="where the results are written",
    )
    options = parser.parse_args()
    seeds, steps = options.seeds, options.steps
    rows = [
        measure("base", options, seeds=seeds, steps=steps),
        measure(f"samples x {GROWTH}", options, seeds=GROWTH * seeds, steps=steps),
        measure(f"steps x {GROWTH}", options, seeds=seeds, steps=GROWTH * steps),
    ]
    base, *larger = rows
    grown = [row.scan for row in larger if row.peak > base.peak + SLACK_BYTES]
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "settings": {
            "checkpoint": options.checkpoint.name,
            "threads": options.threads,
            "rounds": options.rounds,
            "slack_bytes": SLACK_BYTES,
        },
        "grows_with": grown,
        "rows": [asdict(row) for row in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(rows)
    if grown:
        raise SystemExit(f"peak memory grows by more than {SLACK_BYTES >> 20} MiB: {grown}")
    print(f"peak memory is level: no scan needs {SLACK_BYTES >> 20} MiB more than the base one")


if __name__ == "__main__":
    main()
