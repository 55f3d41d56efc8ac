"""The kernels compiled for three chips without one of them."""

import importlib
import itertools
from pathlib import Path

import pytest
from budget import DEEP

pytest.importorskip("triton")

from attnsearch_kernels.triton.resources import SHARED_MEMORY

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KERNELS = {"fused", "long", "given_lse"}
MATRIX_INSTRUCTION = {"sm_80": "HMMA", "sm_90": "HGMMA", "gfx942": "MFMA"}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kernels_compile_for_chips_without_spilling_and_use_its_tensor_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chip a vendor and each kernel once; deep: every chip and every tile of the table."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.syspath_prepend(BENCHMARKS)
    ahead = importlib.import_module("_ahead")
    chips = set(SHARED_MEMORY) if DEEP else {"sm_90", "gfx942"}
    monkeypatch.setattr(ahead, "TARGETS", sorted(chips))
    if not DEEP:
        every = ahead._jobs
        monkeypatch.setattr(ahead, "_jobs", lambda target: first_of_each(every(target)))
    rows = list(ahead.compile_all())
    assert {(row.target, row.kernel) for row in rows} == set(itertools.product(chips, KERNELS))
    for row in rows:
        assert row.problem is None, row
        assert row.resources.spilled == 0, row
        assert row.resources.shared <= SHARED_MEMORY[row.target], row
        assert row.resources.tensor_core[MATRIX_INSTRUCTION[row.target]] > 0, row


def first_of_each(jobs):
    chosen = {}
    for job in jobs:
        chosen.setdefault(job.launch.kernel.__name__, job)
    return list(chosen.values())
