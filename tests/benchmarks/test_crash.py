"""A short run of what `benchmarks/crash.py` and `benchmarks/soak.py` do for longer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(script, tmp_path, *options):
    output = tmp_path / "result.json"
    result = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *map(str, options), "--output", output],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(output.read_text()), result.stdout


@pytest.mark.slow
def test_a_killed_scan_loses_nothing_and_ends_with_the_same_bytes(tmp_path):
    result, printed = run("crash.py", tmp_path, "--kills", 20)
    assert sum(result["killed_before"].values()) == 20
    assert sum(times > 0 for times in result["killed_before"].values()) >= 6
    assert result["acknowledged"] > 0
    assert (result["lost"], result["torn"], result["stores_different"]) == (0, 0, 0)
    assert f"{result['stores_finished']} byte-identical" in printed


@pytest.mark.slow
def test_two_writers_that_keep_being_killed_lose_nothing(tmp_path):
    result, _ = run("soak.py", tmp_path, "--minutes", 0.5)
    assert result["finished"] >= 1
    assert result["readings"] >= 1
    failures = ("lost", "torn", "different", "unreadable")
    assert [result[name] for name in failures] == [0, 0, 0, 0]
