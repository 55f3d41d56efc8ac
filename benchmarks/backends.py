"""Which other libraries could write a store, and what would be promised then?

Writes the files of one block again and again with each of them, and tells how long that takes, how
often the system is asked to force something to the disk, and what keeps it from being offered. A
library that is not installed is left out. Run as `python benchmarks/backends.py`, after
`pip install obstore tensorstore icechunk`.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import numpy as np
from _backend_rivals import BACKENDS, Write
from _workload import ZOO_CHECKPOINT, Workload, versions
from scan import Timing, summary

from attnsearch.scanning.painting import Painter
from attnsearch.store.encoding import BlockCodec
from attnsearch_kernels.machine import describe_machine

LIBRARIES: Final = ("obstore", "tensorstore", "icechunk", "zarr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One library."""

    backend: str
    refused: str | None
    """Why it cannot write a store; None where it can."""
    seconds: Timing | None
    """To write one block so that it lasts, as far as it does."""
    forced: int | None
    """System calls that force something to the disk, a block."""


def block_files() -> list[bytes]:
    """The files of one block of the demonstration model's scan."""
    work = Workload.load(ZOO_CHECKPOINT, seeds=1, steps=14)
    arrays = Painter(work.plan, work.subject(), print).paint(work.plan.layout.block_slice(0))
    stored = {spec.name: arrays[spec.name].astype(spec.dtype) for spec in work.plan.layout.arrays()}
    return list(BlockCodec(work.plan.layout).encode(0, stored).values())


def named(files: list[bytes], block: int) -> dict[str, bytes]:
    """The files of a block under the names a store has for them, and a record."""
    data = {f"scan/array{number}/c.{block}": each for number, each in enumerate(files)}
    return data | {f"scan/ledger/{block}.json": b"{}\n"}


def measure(files: list[bytes], rounds: int, where: Path) -> list[Row]:
    """Write block after block with every library, taking turns, and count system calls."""
    refused: dict[str, str] = {}
    seconds: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    with TemporaryDirectory(dir=where) as folder:
        writers: dict[str, Write] = {}
        for block in range(rounds + 1):
            for number, backend in enumerate(BACKENDS):
                if backend in refused:
                    continue
                try:
                    if not block:
                        writers[backend] = BACKENDS[backend](Path(folder) / str(number))
                    begin = perf_counter()
                    writers[backend](named(files, block))
                    seconds[backend].append(perf_counter() - begin)
                except ImportError as error:
                    refused[backend] = f"not installed: {error}"
                except Exception as error:  # that a library refuses is a result
                    reason = str(error).strip().splitlines()[0]
                    refused[backend] = f"{type(error).__name__}: {reason}"
    return [
        Row(
            backend=backend,
            refused=refused.get(backend),
            # The first block sets up what is set up on first use.
            seconds=None if backend in refused else summary(np.array(seconds[backend][1:])),
            forced=None if backend in refused else count_forced(backend, where),
        )
        for backend in BACKENDS
    ]


def count_forced(backend: str, where: Path) -> int | None:
    """System calls that force something to the disk for a block; None without strace."""
    if shutil.which("strace") is None:
        return None
    with TemporaryDirectory(dir=where) as folder:
        counts = []
        for blocks in (1, 2):
            log = Path(folder) / "calls"
            calls = "trace=fsync,fdatasync,sync_file_range,syncfs,msync"
            command = ["strace", "-f", "-o", str(log), "-e", calls, sys.executable, __file__]
            target = Path(folder) / f"store{blocks}"
            subprocess.run(
                [*command, "--write", backend, "--blocks", str(blocks), "--where", str(target)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            counts.append(len(re.findall(r"sync\w*\(", log.read_text())))
        return counts[1] - counts[0]


def write_only(backend: str, blocks: int, folder: Path) -> None:
    """Write small blocks, for whoever counts the calls."""
    write = BACKENDS[backend](folder)
    for block in range(blocks):
        write(named([b"data"] * 12, block))


def report(rows: list[Row]) -> None:
    """One line a library."""
    columns = "{:34} {:>12} {:>10}  {}"
    print("\n" + columns.format("a block written by", "ms", "forced", "cannot, because"))
    for row in rows:
        milliseconds = "-" if row.seconds is None else f"{1000 * row.seconds.median:.1f}"
        forced = "-" if row.forced is None else str(row.forced)
        print(columns.format(row.backend, milliseconds, forced, row.refused or "").rstrip())


def installed() -> dict[str, str]:
    """The libraries compared."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="blocks written with each")
    parser.add_argument(
        "--where", type=Path, default=Path(), help="a folder on the disk that is to be measured"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "backends-cpu.json",
        help="where the results are written",
    )
    parser.add_argument("--write", choices=BACKENDS, help=argparse.SUPPRESS)
    parser.add_argument("--blocks", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_only(options.write, options.blocks, options.where)
        return
    files = block_files()
    rows = measure(files, options.rounds, options.where)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions() | installed(),
        "settings": {"files": len(files), "bytes": sum(map(len, files))},
        "rows": [asdict(row) for row in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(rows)


if __name__ == "__main__":
    main()
