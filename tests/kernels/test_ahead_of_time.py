"""The kernels compiled for three chips without one of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

from attnsearch_kernels.triton.resources import SHARED_MEMORY

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_kernels_compile_for_every_chip_without_spilling_and_use_its_tensor_cores(
    tmp_path: Path,
) -> None:
    output = tmp_path / "ahead.json"
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "benchmarks/kernels.py", "--aot", "--output", output],
        env=environment | {"PYTHONPATH": "kernels", "TRITON_CACHE_DIR": str(tmp_path / "cache")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(output.read_text())["rows"]
    kernels = {"fused", "long", "given_lse"}
    assert {(row["target"], row["kernel"]) for row in rows} >= {
        (target, kernel) for target in SHARED_MEMORY for kernel in kernels
    }
    for row in rows:
        resources = row["resources"]
        assert resources["spilled"] == 0, row
        assert resources["shared"] <= SHARED_MEMORY[row["target"]], row
        kind = {"sm_80": "HMMA", "sm_90": "HGMMA", "gfx942": "MFMA"}[row["target"]]
        assert resources["tensor_core"][kind] > 0, row
