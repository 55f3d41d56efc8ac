"""`rank` and `ask` at the terminal: questions, views, outputs, controls."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from attnsearch.api.rankings import sparkline
from attnsearch.cli.application import app
from attnsearch.models import Checkpoint, save_checkpoint


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def store(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    save_checkpoint(tiny_checkpoint, folder / "tiny.pt")
    scan = ("scan", folder / "tiny.pt", "--store", folder / "maps", "--seeds", 1, "--steps", 3)
    for more in ((), ("--control",)):
        result = run(*scan, *more)
        assert result.exit_code == 0, result.output
    return folder / "maps"


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr.strip()


def test_the_metrics_are_listed_with_what_they_ask() -> None:
    table = run("rank", "--list").stdout
    rows = json.loads(run("rank", "--list", "--json").stdout)
    assert {"relational", "positional", "relation-variance"} <= {row["metric"] for row in rows}
    assert all(row["summary"] in table for row in rows)


def test_a_control_is_scanned_beside_the_model_and_reported_not_ranked(store: Path) -> None:
    result = run("rank", store, "--json")
    assert {row["model"] for row in json.loads(result.stdout)} == {"tiny"}
    assert "median |score| of 4 heads: " in result.stderr
    assert "random weights: median |score|" in result.stderr
    alone = run("rank", store, "--scan", "tiny-control")
    assert "all scans are controls" in refused(alone)


def test_a_question_is_grouped_filtered_and_cut_by_noise(store: Path) -> None:
    question = ("ask", store, "mass(relation) - mass(shape1)", "--json")
    rows = json.loads(run(*question, "--by", "relation", "--top", 100).stdout)
    assert len(rows) == 8 * 4
    assert len({row["group"] for row in rows}) == 8
    left = json.loads(run(*question, "--where", "relation == left").stdout)
    assert {(row["head"], row["layer"]): row["score"] for row in left} == {
        (row["head"], row["layer"]): row["score"] for row in rows if row["group"] == "left"
    }
    early = json.loads(run(*question, "--noise", "0.9:1.0").stdout)
    assert all(len(row["profile"]) < 3 for row in early)
    peak = json.loads(run(*question, "--over", "peak").stdout)
    assert all(abs(row["score"]) == max(map(abs, row["profile"])) for row in peak)


def test_rows_and_pictures_are_written(store: Path, tmp_path: Path) -> None:
    question = ("ask", store, "mass(relation)")
    assert run(*question, "-o", tmp_path / "x.csv", "--top", 1).exit_code == 0
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    found = json.loads(run(*question, "--json").stdout)
    assert [float(row["score"]) for row in rows] == [row["score"] for row in found]
    assert run(*question, "--by", "relation", "-o", tmp_path / "x.png").exit_code == 0
    with Image.open(tmp_path / "x.png") as picture:
        assert len(picture.convert("RGB").getcolors(10**6) or []) > 4
    assert "must end in .csv, .json" in refused(run(*question, "-o", tmp_path / "x.txt"))
    assert "cannot write" in refused(run(*question, "-o", tmp_path / "no" / "x.csv"))


def test_heads_are_drawn_as_layers_by_heads(store: Path) -> None:
    lines = run("ask", store, "mass(relation)", "--map").stdout.splitlines()
    assert lines[1].split() == ["H0", "H1"]
    assert [line.split()[0] for line in lines[2:4]] == ["L0", "L1"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("mass(relation",), "expected ')', found nothing at character 14"),
        (("relational", "--where", "colour1 = red"), "cannot read '=' at character 9"),
        (("relational", "--noise", "high"), "--noise is a range such as 0.6:1.0"),
        (("relational", "--over", "all"), "--over is mean or peak"),
        (("relational", "--by", "step"), "not by step"),
        (("relational", "--where", "relation == beside"), "no sample of tiny is left"),
    ],
)
def test_what_cannot_be_asked_gets_one_line(
    store: Path, words: tuple[str, ...], complaint: str
) -> None:
    assert complaint in refused(run("ask", store, *words))
    assert "no store is named" in refused(run("rank"))


def test_bars_follow_sizes() -> None:
    assert sparkline([0, 0.5, -1]) == "▁▅█"
    assert sparkline([0, 0]) == "▁▁"
