"""How long does attention with its sketch take, against every other way to get it?

Checks every variant against the float64 definition on the inputs it is timed on, then times the
correct ones in turns. Needs torch, triton and numpy only. On a machine with a GPU:

    PYTHONPATH=kernels python benchmarks/kernels.py

and without one the same script times smaller shapes on the CPU, in processor time of one thread,
which other processes disturb little. Each row is printed, and the JSON written, as soon as it is
measured; `--shapes` splits the run where time is short (with an `--output` for each part),
`--no-compile` leaves out what takes longest.

`--aot` instead compiles the kernels for three chips, prints what they take of them, and exits with
1 if one spills, asks for too much or has no matrix instruction.
"""

import argparse
import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from _cases import CPU_CASES, GPU_CASES, cases_of
from _measure import Row, measure
from _report import report_row, report_rows, report_targets

from attnsearch_kernels.cost import find_device
from attnsearch_kernels.machine import describe_machine

RESULTS = Path(__file__).parent / "results"
ROUNDS = {"cpu": 60, "cuda": 40}
THREADS = 1


def main() -> None:
    """Measure or compile, print the tables, write the results."""
    options = _options()
    if options.aot:
        run_ahead(options.output or RESULTS / "kernels-aot.json")
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU; choose --device cpu or --aot")
    output = options.output or RESULTS / f"kernels-{_short_name(options.device)}.json"
    run(options, output)


def run(options: argparse.Namespace, output: Path) -> None:
    """Time every call of the device."""
    device: str = options.device
    torch.set_num_threads(THREADS)
    try:
        cases = cases_of(device, options.shapes)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    rounds = options.rounds or ROUNDS[device]
    with_compiled = device == "cuda" if options.compile is None else options.compile
    rows: list[Row] = []
    for case in cases:
        with torch.inference_mode():
            rows.append(measure(case, device, rounds=rounds, with_compiled=with_compiled))
        report_row(rows[-1])
        results = {"threads": THREADS, "rounds": rounds, "rows": [asdict(row) for row in rows]}
        write(output, results)
    report_rows(rows)
    report_targets(rows, device)
    if wrong := [f"{row.label}: {each}" for row in rows for each in row.failures()]:
        raise SystemExit("\n".join(wrong))


def run_ahead(output: Path) -> None:
    """Compile every kernel for every chip."""
    try:
        import triton
        from _ahead import compile_all, report_ahead
    except ImportError as error:
        raise SystemExit(f"--aot needs Triton: {error}") from None
    if triton.knobs.runtime.interpret:
        raise SystemExit("--aot compiles kernels, which TRITON_INTERPRET=1 prevents; unset it")
    rows = list(compile_all())
    report_ahead(rows)
    write(output, {"rows": [asdict(row) for row in rows]})
    if offenders := [row for row in rows if row.problem]:
        lines = (
            f"{row.target} {row.kernel} {row.dtype} D {row.channels} keys {row.keys}: {row.problem}"
            for row in offenders
        )
        raise SystemExit("\n".join(lines))


def write(path: Path, results: dict[str, Any]) -> None:
    """Results with the date and the machine."""
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = "none"
    head = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine() | {"triton": triton},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head | results, indent=2) + "\n", encoding="utf-8")


def _short_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    name = torch.cuda.get_device_name()
    known = find_device(name)
    return re.sub(r"[^a-z0-9]+", "-", (known.name if known else name).lower()).strip("-")


def _options() -> argparse.Namespace:
    names = ", ".join(dict.fromkeys(case.name for case in (*CPU_CASES, *GPU_CASES)))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="where to run; a GPU where there is one",
    )
    parser.add_argument("--aot", action="store_true", help="compile ahead of time, run nothing")
    parser.add_argument("--shapes", nargs="+", metavar="NAME", help=f"only these of {names}")
    parser.add_argument("--rounds", type=int, help=f"timed rounds per row; {ROUNDS}")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="time what needs torch.compile; by default on a GPU only",
    )
    parser.add_argument("--output", type=Path, help="the JSON; by default in benchmarks/results")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds {options.rounds} times nothing")
    return options


if __name__ == "__main__":
    main()
