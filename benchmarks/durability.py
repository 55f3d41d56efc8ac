"""What does it cost a scan to wait for the disk?

Scans the demonstration model as `scan.py` does, with every `fsync` of the writer and without any,
taking turns in one process, and writes the same blocks without a model, where nothing else hides
the cost. Prints both ratios, and how long a block waits. What a disk promises when it says that
bytes are on it is its own business. Run as `python benchmarks/durability.py`.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import torch
from _workload import ZOO_CHECKPOINT, Workload, versions
from scan import Timing, summary

from attnsearch.scanning.painting import Painter
from attnsearch.store import ScanWriter
from attnsearch_kernels.machine import describe_machine

DURABLE: Final = "every fsync"
CARELESS: Final = "no fsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of work, with and without waiting for the disk."""

    work: str
    rounds: int
    maps: int
    seconds: dict[str, Timing]
    over_careless: Timing
    """Ratio of the two within a round."""


@contextmanager
def without_fsync() -> Iterator[None]:
    """Nobody waits for the disk."""
    with patch("os.fsync", lambda _: None):
        yield


def measure(name: str, work: Callable[[Path], None], maps: int, rounds: int, where: Path) -> Row:
    """Time a piece of work that fills a folder, in both ways, taking turns."""
    seconds: dict[str, list[float]] = {DURABLE: [], CARELESS: []}
    for turn in range(rounds + 1):
        # The other way round every second time, so that none always follows the same one.
        for way in [DURABLE, CARELESS][:: 1 if turn % 2 else -1]:
            with TemporaryDirectory(dir=where) as folder:
                os.sync()  # what others left to be written is not to be waited for
                with nullcontext() if way == DURABLE else without_fsync():
                    begin = perf_counter()
                    work(Path(folder))
                    seconds[way].append(perf_counter() - begin)
        print(f"{name}: round {turn} of {rounds}", flush=True)
    # The first round sets up what is set up on first use.
    timed = {way: np.array(taken[1:]) for way, taken in seconds.items()}
    return Row(
        work=name,
        rounds=rounds,
        maps=maps,
        seconds={way: summary(taken) for way, taken in timed.items()},
        over_careless=summary(timed[DURABLE] / timed[CARELESS]),
    )


def written_alone(work: Workload) -> Callable[[Path], None]:
    """Writes the blocks of a scan, which are computed once."""
    plan = work.plan
    painter = Painter(plan, work.subject(), print)
    layout = plan.layout
    blocks = [painter.paint(layout.block_slice(block)) for block in range(layout.blocks)]

    def write(folder: Path) -> None:
        arguments: tuple[Any, ...] = (plan.name, layout, plan.coordinates, plan.attributes)
        with ScanWriter.open(folder / "store", *arguments) as writer:
            for block, arrays in enumerate(blocks):
                writer.write_block(block, arrays)

    return write


def report(rows: list[Row], blocks: int) -> None:
    """Seconds with and without, and their ratio with its 20 % and 80 % points."""
    columns = "{:24} {:>12} {:>12} {:>20} {:>14}"
    print("\n" + columns.format("seconds", DURABLE, CARELESS, "ratio", "ms a block"))
    for row in rows:
        ratio, durable, careless = row.over_careless, row.seconds[DURABLE], row.seconds[CARELESS]
        waited = (durable.median - careless.median) / blocks
        print(
            columns.format(
                row.work,
                f"{durable.median:.2f}",
                f"{careless.median:.2f}",
                f"{ratio.median:.3f} ({ratio.p20:.2f}-{ratio.p80:.2f})",
                f"{1000 * waited:.1f}",
            )
        )


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=ZOO_CHECKPOINT)
    parser.add_argument("--seeds", type=int, default=1, help="images per prompt of the grid")
    parser.add_argument("--steps", type=int, default=14, help="sampler steps per image")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each")
    parser.add_argument("--threads", type=int, default=1, help="threads torch may use")
    parser.add_argument(
        "--where", type=Path, default=Path(), help="a folder on the disk that is to be measured"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "durability-cpu.json",
        help="where the results are written",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = Workload.load(options.checkpoint, seeds=options.seeds, steps=options.steps)
    maps = work.plan.layout.maps
    measured = {"scan": work.scan, "blocks written alone": written_alone(work)}
    rows = [
        measure(name, each, maps, options.rounds, options.where) for name, each in measured.items()
    ]
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "settings": {
            "checkpoint": options.checkpoint.name,
            "threads": options.threads,
            "seeds": options.seeds,
            "blocks": work.plan.layout.blocks,
            **work.describe(),
        },
        "rows": [asdict(row) for row in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(rows, work.plan.layout.blocks)


if __name__ == "__main__":
    main()
