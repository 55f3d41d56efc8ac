"""Rules about the source tree that no linter checks."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
SOURCES = sorted(path for top in ("attnsearch", "kernels") for path in (ROOT / top).rglob("*.py"))


def project_folders() -> Iterator[tuple[Path, list[str]]]:
    """Every folder of the project with its file names, leaving out environments and stores."""
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = [
            name for name in subfolders if not name.startswith(".") and not name.endswith(".zarr")
        ]
        yield Path(folder), files


def test_no_folder_called_kernels_is_a_package():
    folders = [(folder, files) for folder, files in project_folders() if folder.name == "kernels"]
    assert ROOT / "kernels" in [folder for folder, _ in folders]
    assert [str(folder) for folder, files in folders if "__init__.py" in files] == []


def test_the_name_kernels_is_left_to_the_package_that_owns_it():
    spec = find_spec("kernels")
    ours = spec is not None and spec.origin is not None and "site-packages" not in spec.origin
    assert not ours, f"`import kernels` would run {spec.origin}"


def test_no_test_folder_is_a_package():
    assert [str(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def test_no_file_is_called_utils():
    names = [folder / name for folder, files in project_folders() for name in files]
    assert [str(path) for path in names if path.name == "utils.py"] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_file_is_short_enough_to_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
