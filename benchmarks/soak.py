"""Do two writers and a reader on one store lose anything when the writers keep being killed?

For some minutes, or until so many stores are finished, two processes scan into one store, now the
same scan together, now one each; each is killed with SIGKILL after a random time and replaced.
Meanwhile a third process reads what is there and checks it. Whenever both scans are finished they
must be byte-identical to scans that nobody killed, and a new store is begun. Exits with 1 if
anything was lost, torn, different or unreadable.
Run as `python benchmarks/soak.py --minutes 10`.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import dask
import numpy as np
import torch
from _killing import Work, scan_exists, tree_bytes, wait_for
from _workload import versions
from crash import CHECKPOINT, prepare

from attnsearch.errors import StoreError
from attnsearch.scanning import DiTSubject, ScanPlan
from attnsearch.store import open_store, verify
from attnsearch_kernels.machine import describe_machine

WRITERS: Final = 2
_READER_SECONDS: Final = 900
"""A reader that takes longer over its last reading hangs."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What happened."""

    seconds: float = 0.0
    kills: int = 0
    ended: int = 0
    """Writers that came to the end of their scan."""
    lost: int = 0
    """Acknowledged blocks that were not there, over all looks."""
    torn: int = 0
    finished: int = 0
    """Stores with both scans complete."""
    different: int = 0
    """Those of them whose bytes are not the reference's."""
    readings: int = 0
    """Times a third process opened the store, read every sketch and checked every byte."""
    unreadable: int = 0
    """Those of them that met an error, a number that is not finite, or a finding."""

    @property
    def passed(self) -> bool:
        """Whether everything is as promised."""
        return not (self.lost or self.torn or self.different or self.unreadable)


def soak(
    plans: list[ScanPlan], subject: DiTSubject, seconds: float, stores: int, seed: int
) -> Tally:
    """Keep two writers and a reader at it for so long, or so many stores if that is sooner."""
    tally = Tally()
    chance = random.Random(seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "reference").mkdir()
        begin = time.monotonic()
        for plan in plans:
            wait_for(Work(plan, subject, folder / "reference").start())
        duration = (time.monotonic() - begin) / len(plans)
        reference = tree_bytes(folder / "reference" / "store")
        begin = time.monotonic()
        number = 0
        while number < stores and time.monotonic() - begin < seconds:
            number += 1
            (folder / str(number)).mkdir()
            works = [Work(plan, subject, folder / str(number)) for plan in plans]
            _fill(works, plans, duration, tally, chance, reference)
            tally.finished += 1
            found = tree_bytes(works[0].store)
            for name in sorted({name for name, _ in found.items() ^ reference.items()}):
                print(f"{name} is not as in the reference", file=sys.stderr, flush=True)
            tally.different += found != reference
            tally.seconds = time.monotonic() - begin
            print(f"{tally.seconds:4.0f} s: {number} stores, {tally.kills} kills", flush=True)
    return tally


def _fill(
    works: list[Work],
    plans: list[ScanPlan],
    duration: float,
    tally: Tally,
    chance: random.Random,
    reference: dict[str, bytes],
) -> None:
    """Bring both scans of one store to their end, whatever happens on the way."""
    store = works[0].store
    reader, last_reading = _start_reader(store, plans)
    writers: dict[int, tuple[Work, float]] = {}
    complete = set[str]()
    names = {work: plan.name for work, plan in zip(works, plans, strict=True)}
    while len(complete) < len(plans) or writers:
        open_works = [work for work in works if names[work] not in complete]
        while open_works and len(writers) < WRITERS:
            work = chance.choice(open_works)
            writers[work.start()] = (work, time.monotonic() + chance.uniform(0, 1.5 * duration))
        time.sleep(0.01)
        for child, (work, until) in list(writers.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended and time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                ended, status = os.waitpid(child, 0)
            if not ended:
                continue
            del writers[child]
            if os.WIFSIGNALED(status):
                tally.kills += 1
                # Even if another had come to the end: this one may have left files in `.writing`.
                complete.discard(names[work])
                state = work.state(reference)
                tally.lost += len(state.lost)
                tally.torn += len(state.torn)
                for finding in state.findings:
                    print(finding, file=sys.stderr, flush=True)
            elif status:
                raise SystemExit("a writer failed; see above")
            else:
                tally.ended += 1
                complete.add(names[work])
    last_reading.set()
    reader.join(timeout=_READER_SECONDS)
    if reader.exitcode != 0:
        reader.kill()
        raise SystemExit("the reader failed or hung; see above")
    said = store.with_name("readings").read_text()
    tally.readings += len(said)
    tally.unreadable += said.count("x")


def _start_reader(store: Path, plans: list[ScanPlan]) -> tuple[BaseProcess, Event]:
    """Fork a child that reads the store again and again and says how that went.

    Set the event to have it read once more and end.
    """
    forking = get_context("fork")
    last = forking.Event()
    reader = forking.Process(target=_read_on, args=(store, plans, last))
    reader.start()
    return reader, last


def _read_on(store: Path, plans: list[ScanPlan], last: Event) -> None:
    # A fork has the pool of its parent, but none of its threads.
    dask.config.set(pool=ThreadPoolExecutor())
    with store.with_name("readings").open("a") as said:
        over = False
        while not over:
            over = last.wait(0.05)  # so that at least one reading sees the scans whole
            if all(scan_exists(store, plan) for plan in plans):
                said.write("." if _reads_well(store) else "x")


def _reads_well(store: Path) -> bool:
    try:
        for scan in open_store(store).children.values():
            if not np.isfinite(scan["sketch"].to_numpy()).all():
                return False
        findings = [finding for check in verify(store) for finding in check.findings]
    except StoreError as error:
        print(error, file=sys.stderr, flush=True)
        return False
    if findings:
        print(findings, file=sys.stderr, flush=True)
    return not findings


def report(tally: Tally) -> None:
    """What happened, in lines."""
    print(
        f"\n{tally.seconds:.0f} s, {WRITERS} writers at a time\n"
        f"{tally.kills} were killed, {tally.ended} came to the end of their scan\n"
        f"{tally.finished} stores of two scans, {tally.finished - tally.different} byte-identical\n"
        f"{tally.lost} acknowledged blocks lost, {tally.torn} torn\n"
        f"{tally.readings} readings meanwhile, {tally.unreadable} of them wrong"
    )


def main() -> None:
    """Soak, write the results, print the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long")
    parser.add_argument("--stores", type=int, default=10**9, help="how many stores at most")
    parser.add_argument("--prompts", type=int, default=48, help="prompts of each scan")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "soak-cpu.json",
        help="where the results are written",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # the children are forked
    plan, subject = prepare(options.prompts, steps=2, batch=4)
    plans = [plan, replace(plan, name="other")]
    tally = soak(plans, subject, 60 * options.minutes, options.stores, options.seed)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "settings": {
            "checkpoint": CHECKPOINT.name,
            "writers": WRITERS,
            "seed": options.seed,
            "blocks": plan.layout.blocks,
        },
        **asdict(tally),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(tally)
    if not tally.passed:
        raise SystemExit("something was lost, torn, different or unreadable")


if __name__ == "__main__":
    main()
