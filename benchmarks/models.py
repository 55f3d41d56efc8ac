"""What do attnsearch and its peers cost on the same diffusers pipeline, and what do they give?

All variants sample the same tiny PixArt pipeline (6 layers of 6 heads, 256 image tokens, 20 text
tokens, 8 prompts with guidance, 14 steps, float32, one thread) and record its cross-attention. The
peers live in environments of their own, and a variant whose environment is missing is reported as
not run. Make the environments once, anywhere, and measure:

    python benchmarks/models.py --peers DIR --setup
    python benchmarks/models.py --peers DIR

Processor seconds are of sampling, in one process an environment: it alternates plain sampling and
its variants, and the environments take turns; a ratio is to plain sampling in the same process and
round. Memory is by how much a fresh process outgrew, in one sampling, its size after a warm-up of
two steps. Each variant then writes what it holds and, from the files alone, answers which ten
heads have the largest relational scores. What it recorded is compared with maps in float64.
"""

import argparse
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from _models_environments import ENVIRONMENTS, Environment, WorkerError, WorkerProcess, set_up
from _models_pipeline import TOP, Size
from _models_report import Range, Row, SweepRow, report
from _workload import versions

from attnsearch_kernels.machine import describe_machine

PLAIN: Final = "plain"
SIZE: Final = Size()
SWEEP: Final = (2, 4)
"""Further numbers of steps, in units of those of the size."""

Runs = dict[tuple[str, str], list[float]]
"""Processor seconds by environment and variant, of every round."""


def main() -> None:
    """Measure, write the results, print the table."""
    options = _options()
    if options.setup:
        set_up(options.peers)
    with TemporaryDirectory() as name:
        folder = Path(name)
        with WorkerProcess(ENVIRONMENTS[0].interpreter(None), folder) as own:
            own.ask("make", **asdict(SIZE))
            own.ask("reference")
        rows = [row for each in ENVIRONMENTS for row in inspect(each, options.peers, folder)]
        seconds = time_in_turns(rows, options.peers, folder, options.rounds)
        rows = [timed(row, seconds) for row in rows]
        swept: list[SweepRow] = []
        write(options, rows, swept)
        if options.sweep:
            swept = sweep(rows, options.peers, folder)
            write(options, rows, swept)
    report(rows, swept, SIZE)
    if failed := [row for row in rows if row.not_run and row.environment == ENVIRONMENTS[0].name]:
        raise SystemExit("\n".join(f"{row.variant}: {row.not_run}" for row in failed))


def write(options: argparse.Namespace, rows: list[Row], swept: list[SweepRow]) -> None:
    """What there is so far, with the date and the machine."""
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions() | {each.name: each.version for each in ENVIRONMENTS[1:]},
        "settings": {"threads": 1, "rounds": options.rounds, "top": TOP, **asdict(SIZE)},
        "note": options.note,
        "rows": [asdict(row) for row in rows],
        "sweep": [asdict(row) for row in swept],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def inspect(environment: Environment, peers: Path | None, folder: Path) -> list[Row]:
    """A row for each variant, without times, each from a process of its own."""
    rows = []
    for variant in environment.variants:
        try:
            with WorkerProcess(environment.interpreter(peers), folder) as worker:
                worker.ask("warm_up", variant=variant)
                found = worker.ask("inspect", variant=variant)
        except WorkerError as error:
            rows.append(Row(environment=environment.name, variant=variant, not_run=str(error)))
            continue
        rows.append(Row(environment=environment.name, variant=variant, **found))
        print(f"{variant} of {environment.name} inspected", flush=True)
    return rows


def time_in_turns(rows: list[Row], peers: Path | None, folder: Path, rounds: int) -> Runs:
    """Times of all variants that ran, one process an environment."""
    workers: dict[str, WorkerProcess] = {}
    runs: Runs = {(row.environment, row.variant): [] for row in rows if not row.not_run}
    try:
        for environment in ENVIRONMENTS:
            for name, variant in runs:
                if name == environment.name:
                    if name not in workers:
                        workers[name] = WorkerProcess(environment.interpreter(peers), folder)
                    workers[name].ask("warm_up", variant=variant)
        for turn in range(rounds):
            # The other way round every second time, so that no variant always follows the same.
            for name, variant in list(runs)[:: 1 if turn % 2 == 0 else -1]:
                elapsed = workers[name].ask("time", variant=variant, steps=SIZE.steps)
                runs[name, variant].append(elapsed)
            print(f"round {turn + 1} of {rounds} done", flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    return runs


def timed(row: Row, runs: Runs) -> Row:
    """The row with what the rounds say."""
    seconds = runs.get((row.environment, row.variant))
    if not seconds:
        return row
    plain = runs[row.environment, PLAIN]
    return replace(
        row,
        rounds=len(seconds),
        processor_seconds=Range.of(seconds),
        over_plain=Range.of([one / base for one, base in zip(seconds, plain, strict=True)]),
    )


def sweep(rows: list[Row], peers: Path | None, folder: Path) -> list[SweepRow]:
    """Memory of every variant that ran at its number of steps and at more."""
    environments = {each.name: each for each in ENVIRONMENTS}
    swept = []
    for row in rows:
        if row.not_run:
            continue
        swept.append(
            SweepRow(
                environment=row.environment,
                variant=row.variant,
                steps=SIZE.steps,
                peak_memory_growth_bytes=row.peak_memory_growth_bytes,
                held_bytes=row.held_bytes,
            )
        )
        for steps in (factor * SIZE.steps for factor in SWEEP):
            interpreter = environments[row.environment].interpreter(peers)
            swept.append(_swept(row, steps, interpreter, folder))
        print(f"{row.variant} of {row.environment} swept", flush=True)
    return swept


def _swept(row: Row, steps: int, interpreter: Path, folder: Path) -> SweepRow:
    try:
        with WorkerProcess(interpreter, folder) as worker:
            worker.ask("warm_up", variant=row.variant)
            found = worker.ask("memory", variant=row.variant, steps=steps)
    except WorkerError as error:  # a peer's guard, for example
        found = {"not_run": str(error)}
    return SweepRow(environment=row.environment, variant=row.variant, steps=steps, **found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments")
    parser.add_argument("--setup", action="store_true", help="make these environments first")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of every variant")
    parser.add_argument("--sweep", action="store_true", help="memory of more steps, too")
    parser.add_argument("--note", default="", help="kept with the results")
    parser.add_argument(
        "--output",
        type=Path,
        help="where the results are written; by default in results/, with peers and without apart",
    )
    options = parser.parse_args()
    if options.output is None:
        # So that a run without peers does not undo what was measured of them.
        name = "models-own-cpu.json" if options.peers is None else "models-cpu.json"
        options.output = Path(__file__).parent / "results" / name
    if options.setup and options.peers is None:
        parser.error("--setup makes environments in --peers, which is not given")
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds} times nothing")
    return options


if __name__ == "__main__":
    main()
