"""A short run of what `benchmarks/crash.py` and `benchmarks/soak.py` do for longer."""

import json
import os
import subprocess
import sys
from pathlib import Path

from budget import DEEP, SEED

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


def test_a_killed_scan_loses_nothing_and_ends_with_the_same_bytes(tmp_path):
    kills, prompts = (200, 48) if DEEP else (6, 12)
    result, printed = run(
        "crash.py", tmp_path, "--kills", kills, "--prompts", prompts, "--seed", SEED
    )
    assert sum(result["killed_before"].values()) == kills
    assert sum(times > 0 for times in result["killed_before"].values()) >= min(kills, 12) // 3
    assert result["acknowledged"] > 0
    assert (result["lost"], result["torn"], result["stores_different"]) == (0, 0, 0)
    assert f"{result['stores_finished']} byte-identical" in printed


def test_two_writers_that_keep_being_killed_lose_nothing(tmp_path):
    stores, prompts = (20, 48) if DEEP else (1, 12)
    options = ("--minutes", 60, "--stores", stores, "--prompts", prompts, "--seed", SEED)
    result, _ = run("soak.py", tmp_path, *options)
    assert result["finished"] == stores
    assert result["readings"] >= stores
    failures = ("lost", "torn", "different", "unreadable")
    assert [result[name] for name in failures] == [0, 0, 0, 0]
