"""`circuit` at the terminal."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from planted_dit import OBJECT, RELATIONAL
from typer.testing import CliRunner

from attnsearch.cli.application import app
from attnsearch.models import Checkpoint, save_checkpoint


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["circuit", *map(str, words)])


@pytest.fixture(scope="module")
def checkpoint(planted: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("circuit") / "planted.pt"
    save_checkpoint(planted, path)
    return path


def test_a_stranger_finds_both_heads(checkpoint: Path, tmp_path: Path) -> None:
    how = ("--images", 8, "--steps", 1, "--guidance", 1)
    result = run(checkpoint, *how, "--json", "-o", tmp_path / "found")
    table = json.loads(result.stdout)
    assert table == json.loads((tmp_path / "found" / "circuit.json").read_text())
    assert (tmp_path / "found" / "qk.png").read_bytes().startswith(b"\x89PNG")
    assert table["heads"] == [table["writers"][0]["address"]] == [str(RELATIONAL)]
    reader = table["readers"][0]
    assert reader["address"] == str(OBJECT)
    assert reader["tilt_by_step"][0] > 100 * abs(reader["tilt_without_by_step"][0])
    assert table["writers"][0]["explained_by_step"] == [pytest.approx(1, abs=1e-3)]
    assert (table["links"][0]["writer"], table["links"][0]["reader"]) == (
        str(RELATIONAL), str(OBJECT),
    )  # fmt: skip


def test_without_images_nothing_is_sampled(checkpoint: Path) -> None:
    result = run(checkpoint, "--images", 0, "--top", 2)
    assert result.exit_code == 0
    assert "sampling" not in result.stderr
    writers, readers = result.stdout.split("\n\n")
    assert next(line.split()[0] for line in writers.splitlines()[2:]) == str(RELATIONAL)
    assert next(line.split()[0] for line in readers.splitlines()[2:]) == str(OBJECT)


def test_nobody_reads_a_head_of_the_last_layer(checkpoint: Path) -> None:
    result = run(checkpoint, "--head", OBJECT, "--images", 0)
    assert result.exit_code == 0
    assert "nobody reads" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--head", "first"], "'first' is not a head address"),
        (["--head", "L9H0"], "there is no head L9H0"),
    ],
)
def test_what_is_not_there_costs_one_line(checkpoint: Path, words: list[str], message: str) -> None:
    result = run(checkpoint, *words, "--images", 0)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_file_in_the_place_of_the_folder_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    result = run(checkpoint, "--images", 0, "-o", taken)
    assert result.exit_code == 2
    assert "is a file" in result.stderr
    assert taken.read_text() == "mine"
