"""The scans of the store's tests."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_STORE_TESTS = Path(__file__).parents[1] / "store"


@pytest.fixture(scope="session")
def make() -> Callable[..., Any]:
    return runpy.run_path(str(_STORE_TESTS / "conftest.py"))["make_scan"]
