"""The list of slow tests names tests that exist, each with a reason."""

from pathlib import Path

import pytest
from slow_tests import REASONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("nodeid", REASONS)
def test_a_slow_test_exists_and_has_a_reason(nodeid: str) -> None:
    file, _, name = nodeid.partition("::")
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")
    assert len(REASONS[nodeid].split()) >= 4
