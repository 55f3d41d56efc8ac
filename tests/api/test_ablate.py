"""`ablate` in Python: a row for every set of heads, held against controls."""

import json
from pathlib import Path

import pytest
from planted_dit import OBJECT, RELATIONAL
from typer.testing import CliRunner

from attnsearch.ablation import MEASURES, Effect
from attnsearch.api.ablate import Ablations, ablate
from attnsearch.api.controls import held_against
from attnsearch.cli.application import app
from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.evaluation import Exam
from attnsearch.models import Checkpoint, save_checkpoint

QUICK = {"seeds": 1, "steps": 1, "guidance": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def found(planted: Checkpoint) -> Ablations:
    return ablate(planted, [str(RELATIONAL)], beside=3, **QUICK)


def effect(difference: float, after: float = 0.5) -> dict[str, Effect]:
    return {
        measure: Effect(
            measure=measure,
            before=after - difference,
            after=after,
            difference=difference,
            low=difference,
            high=difference,
            p_value=1.0,
            images=10,
        )
        for measure in MEASURES
    }


@pytest.mark.parametrize(
    ("difference", "p_value"),
    [(-0.5, 1 / 5), (-0.4, 2 / 5), (-0.2, 3 / 5), (0.0, 4 / 5), (0.3, 1.0)],
)
def test_p_is_the_share_of_sets_that_harm_as_much_with_the_one_asked_for(
    difference: float, p_value: float
) -> None:
    controls = held_against(difference, [effect(each) for each in (-0.4, -0.2, 0.0, 0.1)])
    assert controls.p_value == pytest.approx(p_value)


def test_controls_are_summed_up_by_median_and_range() -> None:
    held = [effect(-0.4, 0.1), effect(0.1, 0.9), effect(-0.1, 0.6)]
    controls = held_against(0.0, held)
    assert (controls.sets, controls.low, controls.difference, controls.high) == (
        3, -0.4, -0.1, 0.1,
    )  # fmt: skip
    assert controls.after == dict.fromkeys(MEASURES, 0.6)


def test_the_head_that_matters_stands_out_of_its_controls(found: Ablations) -> None:
    asked = found[0]  # the most harmful comes first
    assert (asked.heads, asked.set, asked.beside) == (str(RELATIONAL), "asked", "")
    assert found.whole["relation_loose"] == 1
    assert (asked.relation.before, asked.relation.after) == (1, 0.5)
    assert asked.controls is not None
    same_layer = asked.controls["layer"]
    assert (same_layer.sets, same_layer.low, same_layer.high) == (3, 0, 0)
    assert same_layer.p_value == 1 / 4
    controls = [row for row in found if row.set in ("random", "layer")]
    assert {row.beside for row in controls} == {str(RELATIONAL)}
    assert len(controls) == 6
    assert all(row.controls is None for row in controls)
    assert [row.relation.difference for row in found] == sorted(
        row.relation.difference for row in found
    )


def test_a_summary_has_a_line_for_the_controls_of_each_kind(found: Ablations) -> None:
    whole, asked, anywhere, in_layers = found.summary()
    assert (whole.without, whole.after, whole.p_value) == ("-", found.whole, None)
    assert (asked.without, asked.difference) == (str(RELATIONAL), -0.5)
    assert anywhere.without.strip() == "3 others anywhere"
    assert in_layers.without.strip() == "3 others in these layers"
    assert in_layers.p_value == 1 / 4


def test_it_is_a_table_of_numbers(found: Ablations, tmp_path: Path) -> None:
    frame, arrays = found.to_pandas(), found.to_xarray()
    assert frame["difference"].tolist() == [row.relation.difference for row in found]
    assert arrays["after"].sel(measure="relation_loose").values.tolist() == frame["after"].tolist()
    assert arrays["heads"].values.tolist() == frame["heads"].tolist()
    for name in ("x.csv", "x.json", "x.parquet", "x.html", "x.png", "x.svg"):
        assert found.save(tmp_path / name).stat().st_size > 0
    assert json.loads((tmp_path / "x.json").read_text()) == found.records()
    bars = found.figure().axes[0]
    assert [label.get_text() for label in bars.get_yticklabels()] == [str(RELATIONAL)]


def test_the_command_prints_the_same(planted: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "planted.pt"
    save_checkpoint(planted, path)
    words = ["--mode", "zero", "--seeds", "1", "--steps", "1", "--guidance", "1"]
    heads = ["--head", str(RELATIONAL), "--head", f"{RELATIONAL},{OBJECT}"]
    printed = CliRunner().invoke(app, ["ablate", str(path), *heads, *words, "--json"]).stdout
    groups = [RELATIONAL, {RELATIONAL, OBJECT}]
    assert json.loads(printed) == ablate(path, groups, mode="zero", **QUICK).records()


def test_what_was_finished_is_kept_when_the_user_stops(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint, painted = Exam.paint, 0

    def interrupted(exam: Exam, samples: list[int]) -> object:
        nonlocal painted
        painted += len(samples)
        if painted > limit:
            raise KeyboardInterrupt
        return paint(exam, samples)

    monkeypatch.setattr(Exam, "paint", interrupted)
    limit = 96 * 4  # all heads, and two heads alone; of a third a part
    found = ablate(tiny_checkpoint, sweep=True, **QUICK)
    assert {row.heads for row in found} == {"L0H0", "L0H1"}
    assert isinstance(found.stopped, KeyboardInterrupt)
    assert "2 of 4 sets" in found.notes[-1]
    painted, limit = 0, 96
    with pytest.raises(KeyboardInterrupt):
        ablate(tiny_checkpoint, sweep=True, **QUICK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`heads`"),
        ({"heads": "L0H0,first"}, "'first' is not a head address"),
        ({"heads": "L9H0"}, "there is no head L9H0"),
        ({"heads": "L0H0", "hide": "shape1"}, "`hide` is for the mode mask"),
        ({"heads": "L0H0", "mode": "mask", "hide": ["verb"]}, "there is no role 'verb'"),
        ({"heads": "L0H0", "mode": "off"}, "there is no mode 'off'"),
        ({"heads": "L1H0", "into": "L0H0"}, "does not come after"),
        ({"heads": "L0H0", "steps": 0}, "steps must lie between"),
        ({"heads": "L0H0", "beside": -1}, "beside is a number of sets"),
    ],
)
def test_errors_name_parameters(
    tiny_checkpoint: Checkpoint, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        ablate(tiny_checkpoint, **arguments)
    assert "--" not in str(refused.value)


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match="did you mean"):
        ablate("rtep-femto-seed", "L0H0")
