"""Asking for help must not wait for the libraries that do the work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "diffusers", "zarr")

PROBE = """
import sys
from attnsearch.cli import main

sys.argv = ["attnsearch", *sys.argv[1:], "--help"]
try:
    main()
except SystemExit as stop:
    status = stop.code
else:
    status = None
print("status", status, "loaded", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


VERBS = (
    "train", "evaluate", "scan", "rank", "ask", "verify", "publish", "store", "store remove", "zoo",
    "zoo train",
)  # fmt: skip


@pytest.mark.parametrize("verb", [(), *(tuple(verb.split()) for verb in VERBS)], ids=" ".join)
def test_help_answers_without_the_heavy_libraries(verb):
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *verb],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))},
    )
    *help_text, report = result.stdout.splitlines()
    _, status, _, *loaded = report.split()
    assert status in ("0", "None")
    assert any("Usage" in line for line in help_text)
    assert [name for name in HEAVY if name in loaded] == []
