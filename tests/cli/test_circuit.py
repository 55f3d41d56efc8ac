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
    whole, picture = tmp_path / "circuit.json", tmp_path / "qk.png"
    result = run(checkpoint, *how, "--json", "-o", whole, "-o", picture)
    table = json.loads(result.stdout)
    assert table == json.loads(whole.read_text())
    assert picture.read_bytes().startswith(b"\x89PNG")
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


def test_one_file_cannot_hold_three_tables(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, "--images", 0, "-o", tmp_path / "circuit.csv")
    assert result.exit_code == 2
    assert "write circuit.json" in result.stderr
    assert list(tmp_path.iterdir()) == []
