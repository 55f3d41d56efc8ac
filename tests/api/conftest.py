"""Stores of random attention, made by the store's tests."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_STORE_TESTS = Path(__file__).parents[1] / "store"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scans of random attention: of 2 layers and 3 heads, and of 3 layers and 2 heads."""
    make: Callable[..., Any] = runpy.run_path(str(_STORE_TESTS / "conftest.py"))["make_scan"]
    path = tmp_path_factory.mktemp("api") / "maps.zarr"
    make(samples=20, block=5).write(path, "one")
    make(samples=20, block=5, layers=3, heads=2).write(path, "two")
    return path
