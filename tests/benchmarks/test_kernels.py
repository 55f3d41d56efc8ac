"""The benchmark of the kernels times nothing that is wrong; what needs no GPU of it."""

import importlib
import json
import os
import runpy
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Imports a module next to the script."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def inputs(module):
    cases = module("_cases")
    small = cases.Case(name="small", batch=2, heads=2, side=6, text=9, channels=24, order=4)
    return lambda **changes: cases.draw(replace(small, **changes), "cpu", seed=0)


@pytest.mark.parametrize("changes", [{}, {"ragged": True}, {"image_keys": 36}])
def test_every_rival_that_runs_on_a_cpu_equals_the_definition(module, inputs, changes):
    measure, rivals = module("_measure"), module("_rivals")
    call = inputs(**changes)
    gate = measure.Gate(call)
    names = rivals.RIVALS.keys() - rivals.GPU_ONLY - rivals.COMPILED
    for name in names:
        results = rivals.RIVALS[name](call)()
        assert gate.violations(gate.errors(results)) == {}, name
    # Compiling what is correct is the compiler's business.
    assert rivals.RIVALS.keys() - names == rivals.GPU_ONLY | rivals.COMPILED


@pytest.mark.parametrize("spoil", [float("nan"), 1e-3])
def test_a_wrong_result_is_not_timed(module, inputs, monkeypatch, spoil):
    measure, cases, rivals = module("_measure"), module("_cases"), module("_rivals")

    def wrong(call):
        correct = rivals.sketched(call)

        def spoiled():
            results = correct()
            results["sketch"][-1, -1, -1, -1] += spoil * results["sketch"].shape[2]
            return results

        return spoiled

    monkeypatch.setattr(measure, "RIVALS", {"plain": rivals.plain, "sketched": wrong})
    case = cases.Case(name="small", batch=2, heads=2, side=6, text=9, channels=24, order=4)
    row = measure.measure(case, "cpu", rounds=1, with_compiled=False)
    assert row.median("plain") > 0
    assert row.median("sketched") is None
    assert [failure.split()[:2] for failure in row.failures()] == [["sketched", "sketch"]]


def test_memory_of_the_operators_is_poisoned_while_they_are_checked(module):
    with module("_measure").poisoned_memory():
        assert torch.empty(7).isnan().all()


def test_a_run_writes_every_row_and_prints_the_targets_last(tmp_path, monkeypatch, capsys):
    output = tmp_path / "kernels.json"
    threads = torch.get_num_threads()
    arguments = ("--device", "cpu", "--shapes", "small-dit", "--rounds", "1")
    monkeypatch.setattr("sys.argv", ["kernels.py", *arguments, "--output", str(output)])
    monkeypatch.syspath_prepend(BENCHMARKS)
    runpy.run_path(str(BENCHMARKS / "kernels.py"), run_name="__main__")
    torch.set_num_threads(threads)
    assert capsys.readouterr().out.splitlines()[-1].split()[0] in ("met", "missed", "small-dit")
    results = json.loads(output.read_text(encoding="utf-8"))
    assert results["machine"]["cpu"]
    assert [row["ragged"] for row in results["rows"]] == [False, True]
    for row in results["rows"]:
        assert row["backend"] == "torch"
        assert all(variant["microseconds"]["median"] > 0 for variant in row["variants"].values())


def test_an_unknown_shape_is_one_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["kernels.py", "--device", "cpu", "--shapes", "joint-64"])
    monkeypatch.syspath_prepend(BENCHMARKS)
    with pytest.raises(SystemExit, match="no shape 'joint-64' for cpu; it has small-dit"):
        runpy.run_path(str(BENCHMARKS / "kernels.py"), run_name="__main__")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_compiler_that_hangs_or_dies_is_reported_and_the_next_kernel_compiled(
    module, monkeypatch
):
    pytest.importorskip("triton")
    ahead = module("_ahead")
    jobs = list(ahead._jobs("sm_90"))[:3]

    def compile_ahead(launch, target):
        turn = [job.launch is launch for job in jobs].index(True)
        if turn == 0:
            time.sleep(60)
        if turn == 1:
            os._exit(1)
        raise RuntimeError("no such tile\nand more")

    monkeypatch.setattr(ahead, "compile_ahead", compile_ahead)
    monkeypatch.setattr(ahead, "SECONDS", 0.5)
    monkeypatch.setattr(ahead, "TARGETS", ["sm_90"])
    monkeypatch.setattr(ahead, "_jobs", lambda target: jobs)
    assert [row.problem for row in ahead.compile_all()] == [
        "no code after 0.5 s",
        "the compiler died",
        "RuntimeError: no such tile",
    ]
