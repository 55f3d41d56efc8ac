"""What a stranger types first, in an empty folder, at the terminal and in Python."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import attnsearch
from attnsearch.cli import app
from attnsearch.errors import StoreError
from attnsearch.lookup import STORE_VARIABLE, USUAL_STORE
from attnsearch.models import Checkpoint, save_checkpoint
from attnsearch.zoo import FOLDER

QUICK = ("--seeds", "1", "--steps", "2", "--device", "cpu")
ATTO = "rte-atto-seed0"
SAID = f"store: {USUAL_STORE} (in the working directory)"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a model was scanned without a word about a store."""
    path = tmp_path_factory.mktemp("typed")
    save_checkpoint(tiny_checkpoint, path / "mine.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        said = done(run("scan", "mine.pt", *QUICK)).stderr.splitlines()
    assert said[0] == SAID
    assert said[-1] == "next: attnsearch rank --metric relational"
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


def test_what_was_scanned_is_ranked(here: Path) -> None:
    result = done(run("rank", "--metric", "relational", "--json"))
    assert {row["model"] for row in json.loads(result.stdout)} == {"mine"}
    assert SAID in result.stderr
    named = done(run("rank", USUAL_STORE, "--json"))
    assert named.stdout == result.stdout
    assert "store:" not in named.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("ask", "mass(relation)"),
        ("aggregate", "entropy"),
        ("verify",),
        ("info",),
        ("publish", "--to", "elsewhere.zarr"),
    ],
    ids=lambda words: words[0],
)
def test_every_verb_takes_the_same_store(here: Path, words: tuple[str, ...]) -> None:
    assert SAID in done(run(*words)).stderr


def test_a_store_named_in_the_environment_comes_before_the_one_here(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORE_VARIABLE, str(here / USUAL_STORE))
    monkeypatch.chdir(tmp_path)
    result = done(run("ask", "mass(relation)"))
    assert f"(from {STORE_VARIABLE})" in result.stderr
    assert list(attnsearch.open_store().children) == ["mine"]


def test_in_python_it_is_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sampler = attnsearch.SamplerConfig(steps=2)
    attnsearch.scan("mine.pt", seeds=1, sampler=sampler)  # which is there already
    (scan,) = attnsearch.open_scans().values()
    assert scan.identical(attnsearch.open_scan())
    assert scan.identical(attnsearch.open_scan(USUAL_STORE, "mine"))
    assert scan.identical(attnsearch.open_store(Path(USUAL_STORE))["mine"].to_dataset())
    assert capsys.readouterr().err.splitlines() == [SAID] * 3
    heads = attnsearch.rank()
    assert heads == attnsearch.rank(USUAL_STORE) == attnsearch.rank(Path(USUAL_STORE))
    assert heads == attnsearch.rank({"mine": scan})


def test_without_a_store_python_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for ask in (attnsearch.open_store, attnsearch.open_scan, attnsearch.rank):
        with pytest.raises(StoreError, match="`attnsearch scan MODEL` makes one"):
            ask()


def test_a_packaged_model_is_scanned_beside_mine(here: Path) -> None:
    Path("one.txt").write_text("red circle is above blue square\n", encoding="utf-8")
    done(run("scan", ATTO, "--prompts", "one.txt", *QUICK))
    assert set(attnsearch.open_scans()) == {"mine", ATTO}


def test_packaged_models_are_known_wherever_a_model_is_taken() -> None:
    path = FOLDER / f"{ATTO}.pt"
    named, read = (attnsearch.load_checkpoint(model) for model in (ATTO, str(path)))
    assert named.digest == read.digest == attnsearch.load_checkpoint(path).digest
    by_name, loaded = (attnsearch.circuit_of(attnsearch.screening_of(m)) for m in (ATTO, named))
    assert by_name.heads == loaded.heads
    assert named.digest in done(run("info", ATTO, "--json")).stdout
    screened = done(run("rank", ATTO, "--metric", "qk-relational", "--json")).stdout
    assert {row["model"] for row in json.loads(screened)} == {ATTO}
    assert json.loads(done(run("circuit", ATTO, "--images", 0, "--json")).stdout)["heads"]
    assert "'first' is not a head" in refused(run("ablate", ATTO, "--head", "first"))


def test_another_model_of_the_name_or_other_settings_are_refused_with_the_way_out(
    here: Path, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    other = tmp_path / "mine.pt"
    save_checkpoint(replace(tiny_checkpoint, step=7), other)
    for words in ((other, *QUICK), ("mine.pt", *QUICK, "--seeds", "2")):
        line = refused(run("scan", *words))
        assert "a different scan" in line
        assert "choose another --name" in line


def test_a_name_no_scan_can_have_is_made_into_one_that_is_said(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_checkpoint, tmp_path / "my model (final).pt")
    save_checkpoint(tiny_checkpoint, tmp_path / ".model.pt")
    Path("one.txt").write_text("red circle is above blue square\n", encoding="utf-8")
    result = done(run("scan", "my model (final).pt", ".model.pt", "--prompts", "one.txt", *QUICK))
    assert "my model (final).pt is scanned as my-model-final" in result.stderr
    assert ".model.pt is scanned as model" in result.stderr
    assert set(attnsearch.open_scans()) == {"my-model-final", "model"}


def test_the_store_that_was_named_is_named_in_what_comes_next(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save_checkpoint(tiny_checkpoint, tmp_path / "mine.pt")
    (tmp_path / "one.txt").write_text("red circle is above blue square\n", encoding="utf-8")
    store = tmp_path / "my maps.zarr"
    words = ("--prompts", tmp_path / "one.txt", "--store", store, *QUICK)
    result = done(run("scan", tmp_path / "mine.pt", *words))
    assert result.stderr.splitlines()[-1] == f"next: attnsearch rank '{store}' --metric relational"
    assert "store:" not in result.stderr


def test_the_package_runs_as_a_module() -> None:
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "attnsearch", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(root), str(root / "kernels")))},
    )
    assert result.stdout.strip() == version("attnsearch")
