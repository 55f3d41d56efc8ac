"""`ablate` at the terminal."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from attnsearch.cli.application import app
from attnsearch.evaluation import Exam
from attnsearch.models import Checkpoint, save_checkpoint


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["ablate", *map(str, words)])


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ablate") / "tiny.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


def test_every_group_and_every_head_get_a_row(
    checkpoint: Path, tiny_checkpoint: Checkpoint
) -> None:
    how = ("--head", "L0H0,L1H0", "--sweep", "--seeds", 1, "--steps", 1)
    rows = json.loads(run(checkpoint, *how, "--json").stdout)
    model = tiny_checkpoint.model
    alone = {f"L{layer}H{head}" for layer in range(model.depth) for head in range(model.heads)}
    assert {row["heads"] for row in rows} == alone | {"L0H0,L1H0"}
    assert len({row["effects"]["shape"]["before"] for row in rows}) == 1
    assert "change" in run(checkpoint, "--head", "l0h0", *how[3:]).stdout


def test_others_stand_beside_the_heads_asked_for(checkpoint: Path) -> None:
    how = ("--head", "L0H0", "--beside", 2, "--seeds", 1, "--steps", 1)
    rows = json.loads(run(checkpoint, *how, "--json").stdout)
    kinds = [row["set"] for row in rows]
    # The tiny model has two heads in each of two layers: one other in the same.
    assert sorted(kinds) == ["asked", "layer", "random", "random"]
    assert all(row["beside"] == "L0H0" for row in rows if row["set"] != "asked")
    shown = run(checkpoint, *how).stdout
    assert "2 others anywhere" in shown
    assert "1 others in these layers" in shown
    (asked,) = (row for row in rows if row["set"] == "asked")
    assert asked["controls"].keys() == {"random", "layer"}


def test_what_was_finished_is_printed_when_the_user_stops(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep can take long."""
    paint = Exam.paint
    painted = 0

    def interrupted(exam: Exam, samples: list[int]) -> object:
        nonlocal painted
        painted += len(samples)
        if painted > 96 * 4:  # all heads, and two heads alone; of a third a part
            raise KeyboardInterrupt
        return paint(exam, samples)

    monkeypatch.setattr(Exam, "paint", interrupted)
    file = checkpoint.with_name("finished.csv")
    result = run(checkpoint, "--sweep", "--seeds", 1, "--steps", 1, "--json", "-o", file)
    assert result.exit_code == 130
    assert len(file.read_text().splitlines()) == 1 + 2
    assert {row["heads"] for row in json.loads(result.stdout)} == {"L0H0", "L0H1"}
    assert "2 of 4 sets of heads were finished" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say which heads"),
        (["--head", "L0H0,first"], "'first' is not a head address"),
        (["--head", "L9H0"], "there is no head L9H0"),
        (["--head", "L0H0", "--hide", "shape1"], "--hide is for --mode mask"),
        (["--head", "L0H0", "--mode", "mask", "--hide", "verb"], "there is no role 'verb'"),
    ],
)
def test_what_cannot_be_ablated_costs_one_line(
    checkpoint: Path, words: list[str], message: str
) -> None:
    result = run(checkpoint, *words, "--seeds", 1, "--steps", 2)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
