"""`circuit` in Python: writers, readers and links as tables."""

import json
from pathlib import Path

import pytest
from planted_dit import OBJECT, RELATIONAL
from typer.testing import CliRunner

from attnsearch.api.circuit import FoundCircuit, circuit
from attnsearch.cli.application import app
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint, save_checkpoint

QUICK = {"images": 8, "steps": 1, "guidance": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def found(planted: Checkpoint) -> FoundCircuit:
    return circuit(planted, **QUICK)


def test_both_heads_are_found(found: FoundCircuit) -> None:
    assert found.heads == {RELATIONAL} == {found.writers[0].weights.address}
    reader = found.readers[0]
    assert reader.weights.address == OBJECT
    assert reader.tilt_by_step is not None
    assert reader.tilt_without_by_step is not None
    assert reader.tilt_by_step[0] > 100 * abs(reader.tilt_without_by_step[0])
    assert (found.links[0].writer, found.links[0].reader) == (RELATIONAL, OBJECT)


def test_without_images_there_are_the_weights_alone(planted: Checkpoint) -> None:
    found = circuit(planted, {OBJECT}, images=0)
    assert {row.explained_by_step for row in found.writers} == {None}
    assert len(found.readers) == 0
    assert "nobody reads" in found.readers.notes[0]


def test_they_are_tables_of_numbers(found: FoundCircuit) -> None:
    for table in (found.writers, found.readers, found.links):
        assert len(table.to_pandas()) == len(table.to_xarray()["row"]) == len(table) > 0
    assert found.links.to_pandas()["strength"][0] == found.links[0].strength
    assert str(RELATIONAL) in repr(found)
    assert str(OBJECT) in found._repr_html_()


def test_the_command_prints_the_same(
    found: FoundCircuit, planted: Checkpoint, tmp_path: Path
) -> None:
    path, file = tmp_path / "planted.pt", tmp_path / "circuit.json"
    save_checkpoint(planted, path)
    how = ["--images", "8", "--steps", "1", "--guidance", "1", "--json"]
    printed = json.loads(CliRunner().invoke(app, ["circuit", str(path), *how]).stdout)
    assert printed == found.record() == json.loads(found.save(file).read_text())


def test_the_picture_has_a_row_for_each_of_the_first_writers(
    found: FoundCircuit, tmp_path: Path
) -> None:
    labels = [axes.get_ylabel() for axes in found.figure(top=2).axes]
    named = [label for label in labels if label.startswith("L")]
    assert named == [str(row.weights.address) for row in found.writers[:2]]
    assert found.save(tmp_path / "qk.png", top=2).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"write qk\.json"):
        found.save(tmp_path / "qk.csv")
    assert found.readers.save(tmp_path / "readers.csv").read_text().count("\n") > len(found.readers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": "first"}, "'first' is not a head address"),
        ({"heads": "L9H0"}, "there is no head L9H0"),
        ({"images": -1}, "images is a number"),
    ],
)
def test_what_is_not_there_is_refused(
    planted: Checkpoint, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        circuit(planted, **{"images": 0} | arguments)
