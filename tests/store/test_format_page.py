"""docs/store.md says what is on the disk."""

import re
from pathlib import Path

import pytest

from attnsearch.axes import SKETCH_AXES
from attnsearch.store import COORDINATES, SCHEMA_VERSION

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
ROWS = {
    name: ([word.strip() for word in dimensions.split(",")], dtype)
    for name, dimensions, dtype in re.findall(r"^\| `(\w+)` \| ([\w, ]+?) \| (\w+) \|", PAGE, re.M)
}


def test_the_words_for_the_dimensions_of_a_sketch_are_those_of_the_code():
    assert tuple(ROWS["sketch"][0]) == SKETCH_AXES


def test_every_array_is_described_with_its_dimensions_and_type(scan):
    for spec in scan.layout.arrays():
        assert ROWS[spec.name] == (list(spec.dimensions), spec.dtype)


def test_every_coordinate_is_described_and_nothing_else(scan):
    for spec in COORDINATES:
        assert ROWS[spec.name] == ([spec.dimension], spec.dtype)
    for name, (dimension, _) in scan.layout.index_coordinates().items():
        assert ROWS[name][0] == [dimension]
    coordinates = scan.layout.coordinates(scan.coordinates)
    assert ROWS.keys() == coordinates.keys() | {spec.name for spec in scan.layout.arrays()}


def test_the_schema_version_is_the_one_described():
    assert f"Schema version: {SCHEMA_VERSION}." in PAGE


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", PAGE, re.S))
def test_the_examples_run(code, scan, tmp_path, monkeypatch):
    scan.write(tmp_path / "demo.zarr", "demo", blocks=2)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/store.md", "exec"), {})
