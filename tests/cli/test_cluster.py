"""`cluster` and `similar` at the terminal."""

import json
import shutil
import sys
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


def test_families_are_told_by_encoder_and_can_be_drawn(folder: Path) -> None:
    family, *_ = json.loads(run("cluster", folder / "two", "--json").stdout)
    assert [share["models"] for share in family["encoders"].values()] == [2]
    picture = folder / "heads.png"
    assert run("cluster", folder / "two", "-o", picture).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_only_the_models_asked_for_are_clustered(folder: Path) -> None:
    result = run("cluster", folder / "two", "--within", "name=tiny")
    assert result.exit_code == 2
    assert "at least two models" in result.stderr
    result = run("cluster", folder / "two", "--within", "size=large")
    assert result.exit_code == 2
    assert "'size=large' is no condition" in result.stderr


def test_heads_are_sorted_into_behaviours(folder: Path) -> None:
    found = json.loads(run("cluster", folder / "two", "--behaviours", 2, "--json").stdout)
    members = [head for behaviour in found for head in behaviour["members"]]
    scanned = {row["head"] for row in json.loads(
        run("similar", folder / "two", "--to", "tiny:L0H0", "-k", 99, "--json").stdout
    )}  # fmt: skip
    assert sorted(members) == sorted(scanned | {"tiny:L0H0"})
    assert "behaviours" in run("cluster", folder / "two", "--behaviours", 2).stdout
    refused = run("cluster", folder / "two", "--behaviours", "many")
    assert refused.exit_code == 2
    assert "--behaviours is a number or auto, not many" in refused.stderr


def test_what_is_asked_twice_is_read_once(folder: Path) -> None:
    first = run("cluster", folder / "two", "--json").stdout
    kept = {path: path.stat().st_mtime_ns for path in (folder / "two.signatures").iterdir()}
    assert sorted(path.name for path in kept) == ["tiny.npz", "twin.npz"]
    assert run("cluster", folder / "two", "--json").stdout == first
    assert kept == {path: path.stat().st_mtime_ns for path in (folder / "two.signatures").iterdir()}


def test_a_description_finds_heads(folder: Path) -> None:
    rows = json.loads(
        run("similar", folder / "two", "--like", "relational, late", "-k", 3, "--json").stdout
    )
    assert len(rows) == 3
    assert rows[0]["cosine"] >= rows[1]["cosine"] >= rows[2]["cosine"]
    for words in (["--like", "red"], [], ["--like", "object", "--to", "tiny:L0H0"]):
        result = run("similar", folder / "two", *words)
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1


def test_without_faiss_one_line_says_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    for words in (["similar", "--to", "tiny:L0H0"], ["cluster", "--behaviours", 2]):
        result = run(words[0], folder / "two", *words[1:])
        assert result.exit_code == 2
        assert result.stderr.strip().endswith(
            'pip install "attnsearch[cpu]" (or "attnsearch[gpu]")'
        )
    assert run("cluster", folder / "two").exit_code == 0


def test_one_model_gets_one_line(folder: Path) -> None:
    result = run("cluster", folder / "one")
    assert result.exit_code == 2
    assert result.stderr.strip().endswith("families need heads of at least two models")


def test_the_head_most_like_a_head_is_its_copy(folder: Path) -> None:
    like = ("similar", folder / "two", "--to", "tiny:L1H0", "--json")
    rows = json.loads(run(*like).stdout)
    assert (rows[0]["head"], rows[0]["cosine"]) == ("twin:L1H0", pytest.approx(1))
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
