"""`cluster` and `similar` at the terminal."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from attnsearch.cli.application import app
from attnsearch.models import Checkpoint, save_checkpoint


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    save_checkpoint(tiny_checkpoint, folder / "tiny.pt")
    shutil.copy(folder / "tiny.pt", folder / "twin.pt")
    how = ("--seeds", 1, "--steps", 3)
    for store, names in (("one", ["tiny"]), ("two", ["tiny", "twin"])):
        for name in names:
            result = run("scan", folder / f"{name}.pt", "--store", folder / store, *how)
            assert result.exit_code == 0, result.output
    return folder


def test_every_head_finds_itself_in_a_copy_of_its_model(folder: Path) -> None:
    families = json.loads(run("cluster", folder / "two", "--json").stdout)
    assert families
    for family in families:
        assert family["coverage"] == family["models"] == 2
        assert family["heads"]["tiny"] == family["heads"]["twin"]
        assert family["cohesion"] == pytest.approx(1)
    table = run("cluster", folder / "two").stdout
    assert "2 of 2" in table


def test_one_model_gets_one_line(folder: Path) -> None:
    result = run("cluster", folder / "one")
    assert result.exit_code == 2
    assert result.stderr.strip().endswith("families need heads of at least two models")


def test_the_head_most_like_a_head_is_its_copy(folder: Path) -> None:
    like = ("similar", folder / "two", "--to", "tiny:L1H0", "--json")
    rows = json.loads(run(*like).stdout)
    assert rows[0] == {"head": "twin:L1H0", "cosine": pytest.approx(1)}
    assert "tiny:L1H0" not in {row["head"] for row in rows}
    cosines = [row["cosine"] for row in rows]
    assert cosines == sorted(cosines, reverse=True)
    others = json.loads(run(*like, "--elsewhere", "-k", 2).stdout)
    assert len(others) == 2
    assert all(row["head"].startswith("twin:") for row in others)


def test_a_head_that_is_not_there_gets_one_line(folder: Path) -> None:
    result = run("similar", folder / "two", "--to", "tiny:L9H9")
    assert result.exit_code == 2
    assert "no head 'tiny:L9H9'; heads are named as tiny:L0H0" in result.stderr
