"""How long are the first answers: help, the version, a refusal, and a ranking of the demonstration?

python benchmarks/startup.py [--repeats 15] [--store demo.zarr] [--output FILE]

Every command is a process of its own, as at a terminal, and starts with warm files. In each round
all take a turn, and so does `python -c "import torch"`, which is what a command without care would
take at least: ratios are to that one, of the same round. Seconds are those on the wall; processor
seconds, user and system of all threads, depend less on who else uses the machine.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np
from _timing import Spread

from attnsearch.lookup import EXAMPLE_MODEL, STORE_VARIABLE, USUAL_STORE
from attnsearch_kernels.machine import describe_machine

TORCH: Final = "import torch"
ATTNSEARCH: Final = (sys.executable, "-m", "attnsearch")
PROGRAMS: Final = {"python": "pass", TORCH: TORCH, "import attnsearch": "import attnsearch"}
ANSWERS: Final = ("--version", "--help", "rank --help", "rank --metric relational")
REFUSALS: Final = (
    "rank --metric relational",
    'ask "object1 -> relation"',
    "cluster",
    "verify gone.zarr",
    "scan nosuch",
    f"scan {EXAMPLE_MODEL} --prompts no.txt",
    f"rank {EXAMPLE_MODEL}",
    "rank --metric spatial",
    "rank --over all",
    'ask "object1 ->"',
    "evaluate nosuch",
    f"ablate {EXAMPLE_MODEL}",
    f"steer {EXAMPLE_MODEL} --role verb",
    f"circuit {EXAMPLE_MODEL} --head first",
    "train --out run --encoder t5",
    "info nosuch",
    "zoo train no.toml --out runs",
)
"""Refused where there is no store."""
LIMITS: Final = {"--version": 0.4, "--help": 0.4, "rank --help": 0.4, "rank": 1.5, "refusal": 1.0}
"""Seconds that are aimed at, on a quiet core."""


class Taken(NamedTuple):
    """What one process took."""

    seconds: float
    cpu_seconds: float


class Command(NamedTuple):
    """Something that is timed."""

    name: str
    kind: str
    """`program`, `answer` or `refusal`."""
    words: tuple[str, ...]
    folder: Path
    code: int
    """That it has to end with."""
    limit: float | None


def run(command: Command) -> Taken:
    """Start a process and wait for its end.

    Raises:
        SystemExit: it ended in another way than it should.
    """
    environment = {name: value for name, value in os.environ.items() if name != STORE_VARIABLE}
    begin = perf_counter()
    with subprocess.Popen(
        command.words,
        cwd=command.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - begin
        process.returncode = code = os.waitstatus_to_exitcode(status)
    if code != command.code:
        raise SystemExit(f"{command.name} ended with {code}, not {command.code}")
    return Taken(seconds, usage.ru_utime + usage.ru_stime)


def commands(empty: Path, full: Path) -> list[Command]:
    """All that is timed, in a folder without a store and in one with the demonstration's."""
    programs = [
        Command(name, "program", (sys.executable, "-c", code), empty, 0, None)
        for name, code in PROGRAMS.items()
    ]
    answers = [
        Command(
            f"attnsearch {words}",
            "answer",
            (*ATTNSEARCH, *words.split()),
            full,
            0,
            LIMITS.get(words, LIMITS["rank"]),
        )
        for words in ANSWERS
    ]
    refusals = [
        Command(
            f"refused: attnsearch {words}",
            "refusal",
            (*ATTNSEARCH, *shlex.split(words)),
            empty,
            2,
            LIMITS["refusal"],
        )
        for words in REFUSALS
    ]
    return [*programs, *answers, *refusals]


def row(command: Command, taken: Sequence[Taken], torch: Sequence[Taken]) -> dict[str, Any]:
    """What is kept of a command, given what it and torch took in every round."""
    seconds, cpu = (np.array(column) for column in zip(*taken, strict=True))
    torch_seconds, torch_cpu = (np.array(column) for column in zip(*torch, strict=True))
    return {
        "command": command.name,
        "kind": command.kind,
        "aim_seconds": command.limit,
        "seconds": asdict(Spread.of(seconds)),
        "cpu_seconds": asdict(Spread.of(cpu)),
        "over_torch": asdict(Spread.of(seconds / torch_seconds)),
        "cpu_over_torch": asdict(Spread.of(cpu / torch_cpu)),
    }


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15, help="rounds that count")
    parser.add_argument("--store", type=Path, help="of the demonstration; by default it is scanned")
    default = Path(__file__).parent / "results" / "startup-cpu.json"
    parser.add_argument("--output", type=Path, default=default, help="where results are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder, "empty"), Path(folder, "full")
        empty.mkdir()
        full.mkdir()
        if arguments.store is None:
            subprocess.run([*ATTNSEARCH, "scan", EXAMPLE_MODEL], cwd=full, check=True)
        else:
            (full / USUAL_STORE).symlink_to(arguments.store.absolute())
        timed = commands(empty, full)
        taken: dict[Command, list[Taken]] = {command: [] for command in timed}
        for turn in range(1 + arguments.repeats):
            for command in timed:
                found = run(command)
                if turn:  # the first round warms the files
                    taken[command].append(found)
    torch = next(each for command, each in taken.items() if command.name == TORCH)
    rows = [row(command, each, torch) for command, each in taken.items()]
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "repeats": arguments.repeats,
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for each in rows:
        aim = "" if each["aim_seconds"] is None else f"  aim {each['aim_seconds']:.1f} s"
        print(
            f"{each['command']:60} {each['seconds']['median']:6.2f} s, processor "
            f"{each['cpu_seconds']['median']:5.2f} s, {each['cpu_over_torch']['median']:4.2f} of "
            f"importing torch{aim}"
        )


if __name__ == "__main__":
    main()
