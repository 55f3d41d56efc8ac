"""The kernels in Triton's interpreter, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def test_interpreted_kernels_keep_every_law_of_sketch_attention() -> None:
    files = ("test_sketch_attention.py", "test_given_lse.py", "test_triton.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "triton", *(FOLDER / name for name in files)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    print(done.stdout.splitlines()[-1])
