"""`steer`, and `evaluate --wordings`, at the terminal."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from planted_dit import RELATIONAL
from typer.testing import CliRunner

from attnsearch.cli.application import app
from attnsearch.models import Checkpoint, save_checkpoint

QUICK = ("--seeds", 1, "--steps", 1, "--guidance", 1)


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture(scope="module")
def checkpoint(planted: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steer") / "planted.pt"
    save_checkpoint(planted, path)
    return path


def test_objects_are_moved_to_the_opposite(checkpoint: Path) -> None:
    rows = json.loads(run("steer", checkpoint, "--head", RELATIONAL, *QUICK, "--json").stdout)
    shares = {row["measure"]: row for row in rows}
    assert shares["asked"]["before"] == shares["target"]["after"] == 1
    shown = run("steer", checkpoint, "--role", "relation", "--to", "left", *QUICK).stdout
    assert "relation to left" in shown
    assert "the target relation" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what is steered by"),
        (["--head", "L1H2", "--role", "relation"], "say what is steered by"),
        (["--head", "L1H2", "--to", "beside"], "no relation 'beside'"),
        (["--head", "L8H0"], "no head L8H0"),
        (["--role", "verb"], "no role 'verb'"),
    ],
)
def test_what_cannot_be_steered_costs_one_line(
    checkpoint: Path, words: list[str], message: str
) -> None:
    result = run("steer", checkpoint, *words, *QUICK)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_every_wording_gets_a_row(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.pt"
    save_checkpoint(tiny_checkpoint, tiny)
    rows = json.loads(run("evaluate", tiny, "--wordings", *QUICK, "--json").stdout)
    assert rows[0]["wording"] == "as trained"
    counts = {row["wording"]: row["images"] for row in rows}
    assert counts.pop("other phrases") == 168
    assert counts.pop("no colours") == 48  # two pairs of objects have one text
    assert set(counts.values()) == {96}
    assert [row["wording"] for row in rows if row["colour"] is None] == ["no colours"]
    printed = run("evaluate", tiny, "--wordings", *QUICK).stdout
    assert "object 2 first" in printed
    (row,) = (line.split() for line in printed.splitlines() if "no colours" in line)
    assert row[3] == "-"
    refused = run("evaluate", tiny, "--wordings", "-o", tmp_path / "a.png", *QUICK)
    assert refused.exit_code == 2
