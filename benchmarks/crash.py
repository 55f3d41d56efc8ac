"""Does a scan that is killed lose anything, and does it end as if it had not been?

Scans a small model into a store and kills the process with SIGKILL, half of the times at a random
moment, half before a named operation on the disk; then scans on, and so forth, one store after the
other. After every kill each block that was acknowledged must be there and no block may be torn;
every finished store must be byte-identical to one that nobody killed. Exits with 1 otherwise.
Run as `python benchmarks/crash.py --kills 100`.
"""

import argparse
import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from _killing import INSTANTS, Work, committed_blocks, die_before, scan_exists, tree_bytes, wait_for
from _workload import versions

from attnsearch.models import load_checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning import DiTSubject, ScanPlan, plan_scan, read_captions
from attnsearch_kernels.machine import describe_machine

CHECKPOINT: Final = Path(__file__).parents[1] / "attnsearch" / "zoo" / "rtep-atto-seed0.pt"
AT_RANDOM: Final = "a random moment"


@dataclass(slots=True, kw_only=True)
class Tally:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    """By the moment."""
    acknowledged: int = 0
    """Blocks that children were told are written, at the time of each kill, summed."""
    lost: int = 0
    torn: int = 0
    finished: int = 0
    """Stores that were scanned to the end after at least one kill."""
    different: int = 0
    """Those of them whose bytes are not the reference's."""

    @property
    def passed(self) -> bool:
        """Whether everything is as promised."""
        return not (self.lost or self.torn or self.different)


def prepare(prompts: int, steps: int, batch: int) -> tuple[ScanPlan, DiTSubject]:
    """The scan that is killed."""
    subject = DiTSubject(load_checkpoint(CHECKPOINT), torch.device("cpu"))
    subject.prepare()
    captions = read_captions("grid", subject.checkpoint.task)[:prompts]
    plan = plan_scan(
        subject,
        name="scan",
        prompts=captions,
        seeds=1,
        sampler=SamplerConfig(steps=steps),
        batch=batch,
    )
    return plan, subject


def kill_one(
    work: Work, plan: ScanPlan, duration: float, tally: Tally, chance: random.Random
) -> bool:
    """Start a child that is killed somewhere; whether it was, and did not end before."""
    fresh = not scan_exists(work.store, plan)
    left = sorted(set(range(plan.layout.blocks)) - committed_blocks(work.store, plan))
    moment = AT_RANDOM
    if chance.random() < 0.5:
        # Those that are had least come first, so that none is left out.
        possible = [name for name, instant in INSTANTS.items() if fresh or not instant.fresh]
        moment = min(possible, key=lambda name: (tally.kills[name], chance.random()))
    if moment == AT_RANDOM:
        child = work.start()
        time.sleep(chance.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
    else:
        block = chance.choice(left) if left else 0
        child = work.start(lambda: die_before(INSTANTS[moment], block))
    killed = wait_for(child)
    tally.kills[moment] += killed
    return killed


def run(kills: int, plan: ScanPlan, subject: DiTSubject, seed: int) -> Tally:
    """Kill so many times."""
    tally = Tally()
    chance = random.Random(seed)
    with TemporaryDirectory() as folder:
        whole = Work(plan, subject, _made(Path(folder) / "reference"))
        begin = time.monotonic()
        wait_for(whole.start())
        duration = time.monotonic() - begin
        reference = tree_bytes(whole.store)
        number = 0
        while tally.kills.total() < kills:
            number += 1
            work = Work(plan, subject, _made(Path(folder) / str(number)))
            stop = chance.randint(1, 12)  # kills of this store
            while tally.kills.total() < kills and stop:
                if kill_one(work, plan, duration, tally, chance):
                    state = work.state(reference)
                    tally.acknowledged += len(state.acknowledged)
                    tally.lost += len(state.lost)
                    tally.torn += len(state.torn)
                stop -= 1
            wait_for(work.start())
            tally.finished += 1
            tally.different += tree_bytes(work.store) != reference
            print(f"{tally.kills.total()} of {kills} kills, {number} stores", flush=True)
    return tally


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def report(tally: Tally) -> None:
    """How often it was killed when, and what that cost."""
    print(f"\n{'killed before':44} {'times':>5}")
    for moment in (AT_RANDOM, *INSTANTS):
        print(f"{moment:44} {tally.kills[moment]:5}")
    print(
        f"{'in all':44} {tally.kills.total():5}\n\n"
        f"{tally.acknowledged} acknowledged blocks looked for\n"
        f"{tally.lost} lost, {tally.torn} torn\n"
        f"{tally.finished} stores finished, {tally.finished - tally.different} byte-identical"
    )


def main() -> None:
    """Kill, write the results, print the table and the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in all")
    parser.add_argument("--prompts", type=int, default=48, help="prompts of the scan")
    parser.add_argument("--steps", type=int, default=2, help="sampler steps per image")
    parser.add_argument("--batch", type=int, default=4, help="samples of a block")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "crash-cpu.json",
        help="where the results are written",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)  # the children are forked
    plan, subject = prepare(options.prompts, options.steps, options.batch)
    tally = run(options.kills, plan, subject, options.seed)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "settings": {
            "checkpoint": CHECKPOINT.name,
            "kills": options.kills,
            "seed": options.seed,
            "samples": plan.layout.samples,
            "blocks": plan.layout.blocks,
            "steps": plan.layout.steps,
        },
        "killed_before": {name: tally.kills[name] for name in (AT_RANDOM, *INSTANTS)},
        "acknowledged": tally.acknowledged,
        "lost": tally.lost,
        "torn": tally.torn,
        "stores_finished": tally.finished,
        "stores_different": tally.different,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(tally)
    if not tally.passed:
        raise SystemExit("something was lost, torn or different")


if __name__ == "__main__":
    main()
