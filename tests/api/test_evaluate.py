"""`evaluate` in Python: accuracies as tables, and the images they are of."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attnsearch.api.evaluate import Accuracies, Wordings, evaluate
from attnsearch.cli.application import app
from attnsearch.errors import ConfigError
from attnsearch.evaluation import MEASURES
from attnsearch.models import Checkpoint, save_checkpoint

QUICK = {"steps": 1, "guidance": 1, "device": "cpu"}
WORDS = ("--steps", "1", "--guidance", "1", "--json")


@pytest.fixture(scope="module")
def found(planted: Checkpoint) -> Accuracies:
    return evaluate(planted, seeds=1, **QUICK)


@pytest.fixture(scope="module")
def path(planted: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "planted.pt"
    save_checkpoint(planted, path)
    return path


def test_every_measure_of_every_split_is_a_row(found: Accuracies) -> None:
    assert [row.measure for row in found] == list(MEASURES)  # nothing is held out
    assert {row.split for row in found} == {"in_distribution"}
    assert {row.value for row in found} == {1}
    assert {row.count for row in found} == {len(found.images)} == {len(found.captions)}
    assert all(row.low is not None and row.low < 1 for row in found)


def test_what_is_not_asked_has_no_value(tiny_checkpoint: Checkpoint) -> None:
    forgetful = replace(tiny_checkpoint.task, colour_dropout=0.5)
    rows = evaluate(replace(tiny_checkpoint, task=forgetful), seeds=1, **QUICK)
    unasked = {(row.split, row.measure, row.count) for row in rows if row.value is None}
    assert unasked == {("in_distribution_no_colours", "colour", 0)}


def test_it_is_a_table_of_numbers(found: Accuracies, tmp_path: Path) -> None:
    assert found.to_pandas()["value"].tolist() == [1.0] * len(found)
    assert found.to_xarray()["count"].sizes == {"row": len(found)}
    assert json.loads(found.save(tmp_path / "x.json").read_text()) == found.records()


def test_its_picture_has_one_image_of_every_prompt_above_its_caption(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    found = evaluate(tiny_checkpoint, seeds=2, **QUICK)
    (sheet,) = found.figure().axes
    said = [text.get_text().replace("\n", " ") for text in sheet.texts]
    assert said == [caption.text for caption in found.captions[::2]]
    assert len(sheet.images) == len(said) == 96
    assert found.save(tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_the_same(found: Accuracies, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "accuracies.csv"
    words = ["evaluate", str(path), "--seeds", "1", *WORDS, "-o", str(file)]
    assert json.loads(CliRunner().invoke(app, words).stdout) == found.records()
    assert len(file.read_text().splitlines()) == 1 + len(found)


def test_every_wording_is_a_row(
    tiny_checkpoint: Checkpoint, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate(tiny_checkpoint, seeds=1, wordings=True, **QUICK)
    assert isinstance(found, Wordings)
    assert found[0].wording == "as trained"
    records = found.records()
    assert {"shape", "shape_low", "shape_high", "relation_loose"} < records[0].keys()
    assert [row["wording"] for row in records if row["colour"] is None] == ["no colours"]
    with pytest.raises(ConfigError, match="no picture"):
        found.figure()
    measured = {row.wording: row.accuracies for row in found}
    monkeypatch.setattr("attnsearch.evaluation.robustness", lambda *_, **__: measured)
    tiny = path.with_name("tiny.pt")
    save_checkpoint(tiny_checkpoint, tiny)
    words = ["evaluate", str(tiny), "--wordings", "--seeds", "1", *WORDS]
    assert json.loads(CliRunner().invoke(app, words).stdout) == records


def test_numbers_that_cannot_be_are_refused(planted: Checkpoint) -> None:
    for wrong in ({"seeds": 0}, {"steps": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must"):
            evaluate(planted, **{"steps": 1, "device": "cpu"} | wrong)
