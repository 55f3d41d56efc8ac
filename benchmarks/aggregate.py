"""How long does it take to reduce a million maps, ten million, fifty million?

Writes stores of random numbers with the real schema, and asks of each the mean and the variance of
every coefficient of the attention to the relation words, by relation, step, layer and head: with
attnsearch on threads and on a cluster of two workers, with other libraries, and, as a floor, by
reading the same bytes and doing nothing. Then it ranks and asks, for the first time and again. A
library that is not installed is left out. What is published is written by
`python benchmarks/aggregate.py --maps 1e6 1e7 5e7 --rounds 3 3 1`, after `pip install flox duckdb
polars`, on a disk with 60 GB of space.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import numpy as np
import xarray as xr
from _aggregate_rivals import (
    BRANCH,
    RIVALS,
    ROLE,
    Answer,
    export_parquet,
    libraries,
)
from _footprint import Footprint, footprint, forget
from _synthetic import HEADS, LAYERS, NAME, STEPS, write_store
from distributed import LocalCluster

from attnsearch import metrics
from attnsearch.aggregation import Aggregator, Attention
from attnsearch.scheduling import Scheduler
from attnsearch.store import open_scan, open_scans
from attnsearch_kernels.machine import describe_machine

PLACE: Final = (STEPS // 2, LAYERS // 2, HEADS // 2)
"""Of the maps that are computed with NumPy too: step, layer, head."""
KEEP: Final = ("relation", "step", "layer", "head", "basis")
NEVER: Final = 2**62
"""Bytes from which on states are kept: none are."""

OURS: Final = ("ours", "ours, two workers", "ours, kept")
TOOLS: Final = ("rank", "rank, kept", "ask", "ask, kept")
COLD: Final = ("raw", "ours", "rank", "ask")
"""Also measured with nothing of the store in memory."""
PATIENCE_SECONDS: Final = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to answer, on one store."""

    maps: int
    way: str
    cold: bool
    refused: str | None
    """Why there is no answer."""
    rounds: tuple[Footprint, ...] = ()
    largest_error: float | None = None
    """Of mean and variance, relative, beside float64 NumPy on the maps of one head and step."""


def ours(store: Path, scheduler: str, worth_keeping: int = NEVER) -> Answer:
    """The answer of attnsearch, run at some scheduler."""
    with Scheduler.parse(scheduler).open() as runner:
        aggregate = Aggregator(runner=runner, worth_keeping=worth_keeping)
        found = aggregate(open_scan(store, NAME), Attention(roles=(ROLE,)), KEEP)
    found = found.sortby("relation")
    return found["mean"].to_numpy(), found["variance"].to_numpy()


def rank(store: Path) -> None:
    """`attnsearch rank`, without what Python takes to start."""
    metrics.rank(open_scans(store), "relational")


def ask(store: Path) -> None:
    """`attnsearch ask`, without what Python takes to start."""
    metrics.rank(open_scans(store), "object1 -> relation")


@contextmanager
def prepared(way: str, store: Path, table: Path) -> Iterator[Callable[[], Answer | None]]:
    """What answers; whatever it needs is there already."""
    tool, _, kept = way.partition(", ")
    if way in RIVALS:
        yield partial(RIVALS[way], store, table)
    elif tool in ("rank", "ask"):
        question = rank if tool == "rank" else ask
        if kept:
            question(store)
        yield partial(question, store)
    elif way == "ours, two workers":
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            yield partial(ours, store, cluster.scheduler_address)
    elif way == "ours, kept":
        answer = partial(ours, store, "threads", 0)
        answer()
        yield answer
    else:
        yield partial(ours, store, "threads")


def expected(store: Path) -> Answer:
    """Mean and variance [relation, basis] of the maps of one step, layer and head, by NumPy."""
    scan = xr.open_zarr(store, group=NAME, chunks={})
    step, layer, head = PLACE
    sketch = scan["sketch"].sel(branch=BRANCH, role=ROLE)
    values = sketch.isel(step=step, layer=layer, head=head).to_numpy().astype(np.float64)
    names = scan["relation"].to_numpy().astype(object)
    groups = [values[names == name] for name in np.unique(names)]
    return (
        np.stack([group.mean(axis=0) for group in groups]),
        np.stack([group.var(axis=0) for group in groups]),
    )


def largest_error(answer: Answer, reference: Answer) -> float:
    """Relative to the largest number of the reference."""
    pairs = zip(answer, reference, strict=True)
    return max(
        float(np.abs(found[:, *PLACE] - right).max() / np.abs(right).max())
        for found, right in pairs
    )


def answer_once(way: str, store: Path, table: Path, *, cold: bool, check: bool) -> dict[str, Any]:
    """Answer in this process, and say what it took."""
    answers: list[Answer | None] = []
    rmtree(store / ".cache", ignore_errors=True)
    with prepared(way, store, table) as answer:
        if cold:
            forget(store / NAME)
        taken = footprint(lambda: answers.append(answer()))
    (found,) = answers
    error = largest_error(found, expected(store)) if check and found is not None else None
    return {"footprint": asdict(taken), "largest_error": error}


def row(maps: int, way: str, store: Path, table: Path, *, cold: bool, rounds: int) -> Row:
    """Answer some times, each in a process of its own."""
    footprints, error = [], None
    for number in range(rounds):
        command = [sys.executable, __file__, "--answer", way, str(store), str(table)]
        command += ["--cold"] * cold + ["--check"] * (number == 0)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Row(maps=maps, way=way, cold=cold, refused=f"over {PATIENCE_SECONDS} s")
        if done.returncode:
            reason = (done.stderr.strip() or "killed").splitlines()[-1]
            return Row(maps=maps, way=way, cold=cold, refused=reason)
        said = json.loads(done.stdout.splitlines()[-1])
        footprints.append(Footprint(**said["footprint"]))
        error = said["largest_error"] if number == 0 else error
    return Row(
        maps=maps,
        way=way,
        cold=cold,
        refused=None,
        rounds=tuple(footprints),
        largest_error=error,
    )


def measure(maps: int, rounds: int, where: Path) -> tuple[list[Row], dict[str, Any]]:
    """All ways on one store, and what is known of the store."""
    with TemporaryDirectory(dir=where) as folder:
        store, table = Path(folder) / "store.zarr", Path(folder) / "maps.parquet"
        begin = perf_counter()
        layout = write_store(store, maps)
        written = perf_counter() - begin
        if find_spec("pyarrow") is not None:
            export_parquet(store, table)
        files = [path.stat().st_size for path in (store / NAME).rglob("*") if path.is_file()]
        rows = []
        for way in (*RIVALS, *OURS, *TOOLS):
            for cold in (True, False) if way in COLD else (False,):
                if not cold:
                    RIVALS["raw"](store, table)  # from here on it is in memory
                rows.append(row(layout.maps, way, store, table, cold=cold, rounds=rounds))
                report(rows[-1:])
        plan = Aggregator().plan(open_scan(store, NAME), Attention(roles=(ROLE,)), KEEP)
        facts = {
            "maps": layout.maps,
            "samples": layout.samples,
            "files": len(files),
            "bytes": sum(files),
            "written_seconds": written,
            "parquet_bytes": table.stat().st_size if table.exists() else None,
            "plan": asdict(plan) | {"memory_of_two": plan.memory(2)},
        }
    return rows, facts


def report(rows: list[Row]) -> None:
    """One line a way."""
    columns = "{:>12} {:22} {:>6} {:>9} {:>9} {:>10} {:>10}"
    for each in rows:
        if each.refused is not None:
            print(f"{each.maps:12,} {each.way:22} {each.refused}", flush=True)
            continue
        middle = sorted(each.rounds, key=lambda one: one.seconds)[len(each.rounds) // 2]
        print(
            columns.format(
                f"{each.maps:,}",
                each.way,
                "disk" if each.cold else "",
                f"{middle.seconds:.2f}",
                f"{middle.cpu_seconds:.2f}",
                f"{max(one.peak_bytes for one in each.rounds) / 2**20:,.0f}",
                "" if each.largest_error is None else f"{each.largest_error:.0e}",
            ),
            flush=True,
        )


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--maps", type=float, nargs="+", default=[1e6], help="sizes of stores")
    parser.add_argument(
        "--rounds", type=int, nargs="+", default=[3], help="answers of each way, by size"
    )
    parser.add_argument(
        "--where", type=Path, default=Path(), help="a folder on the disk that is to be measured"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "aggregate-cpu.json",
        help="where the results are written",
    )
    parser.add_argument("--answer", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        way, store, table = options.answer
        said = answer_once(way, Path(store), Path(table), cold=options.cold, check=options.check)
        print(json.dumps(said))
        return
    rows: list[Row] = []
    stores = []
    for maps, rounds in zip(options.maps, options.rounds, strict=True):
        more, facts = measure(int(maps), rounds, options.where)
        rows += more
        stores.append(facts)
        results = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine(),
            "versions": libraries(),
            "stores": stores,
            "rows": [asdict(each) for each in rows],
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print("\n        maps answered by              from     seconds       CPU   peak MiB    error")
    report(rows)


if __name__ == "__main__":
    main()
