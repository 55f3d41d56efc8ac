from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.models import load_checkpoint, save_checkpoint
from attnsearch.training import ColourDropout, Trainer

CPU = torch.device("cpu")
PROBABILITIES = st.floats(0, 1)
SCHEDULES = st.builds(
    lambda first, later: [[0, first], *([step, later[step]] for step in sorted(later))],
    PROBABILITIES,
    st.dictionaries(st.integers(1, 100), PROBABILITIES, max_size=4),
)


@given(SCHEDULES)
def test_a_stage_holds_until_the_next(stages):
    schedule = ColourDropout.read(stages)
    for step in range(101):
        (*_, (_, value)) = (stage for stage in stages if stage[0] <= step)
        assert schedule.at(step) == value
    assert schedule.last == stages[-1][1]


@given(SCHEDULES | PROBABILITIES)
def test_a_schedule_is_read_back(value):
    schedule = ColourDropout.read(value)
    assert ColourDropout.read(schedule.plain()) == schedule


@pytest.mark.parametrize(
    "wrong",
    [
        1.5, -0.1, float("nan"), 10**400, True, "0.5", None, [], [0.5], [[0]], [[0, 0.5, 1]],
        [[1, 0.5]], [[0, 0.5], [0, 0.6]], [[0, 0.0], [9, 0.1], [5, 0.2]], [[0, 0.0], [5, 2]],
        [[0.0, 0.5]], [[0, True]], [[0, "1"]], [[-1, 0.5]],
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(wrong):
    with pytest.raises(ConfigError, match="colour_dropout") as caught:
        ColourDropout.read(wrong)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.fixture(scope="module")
def scheduled(tiny_run):
    """Colours are named for six steps, then left out half the time."""
    return replace(
        tiny_run,
        task=replace(tiny_run.task, colour_dropout=0.5),
        colour_dropout=ColourDropout.read([[0, 0.0], [6, 0.5]]),
    )


def test_a_schedule_ends_within_the_training_and_at_the_task(scheduled):
    with pytest.raises(ConfigError, match="changes at step 6, the training has 6 steps"):
        replace(scheduled, steps=6)
    with pytest.raises(ConfigError, match="must end at the task's"):
        replace(scheduled, task=replace(scheduled.task, colour_dropout=0.4))


@pytest.mark.parametrize(
    ("stages", "left_out"),
    [([[0, 0.0], [2, 1.0]], [0, 0, 1, 1]), ([[0, 1.0], [3, 0.0]], [1, 1, 1, 0])],
)
def test_colour_words_are_left_out_of_the_steps_that_say_so(tiny_run, stages, left_out):
    schedule = ColourDropout.read(stages)
    config = replace(
        tiny_run,
        task=replace(tiny_run.task, colour_dropout=schedule.last),
        colour_dropout=schedule,
        null_probability=0.0,
    )
    trainer, masks = Trainer(config, CPU), []
    trainer.model.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[3]))
    for _ in left_out:
        trainer.take_step()
    # The shortest caption with both colours, `red square is above blue circle </s>`, has 7 tokens.
    assert [int(mask.sum(1).min() == 5) for mask in masks] == left_out
    assert trainer.checkpoint().task.colour_dropout == schedule.last


@pytest.mark.parametrize("stop", [4, 6, 9])
def test_a_scheduled_run_resumes_exactly(scheduled, tmp_path, stop):
    straight, stopped = Trainer(scheduled, CPU), Trainer(scheduled, CPU)
    losses = [straight.take_step() for _ in range(12)]
    before = [stopped.take_step() for _ in range(stop)]
    save_checkpoint(stopped.checkpoint(), tmp_path / "checkpoint.pt")
    resumed = Trainer.resume(scheduled, load_checkpoint(tmp_path / "checkpoint.pt"), CPU)
    assert before + [resumed.take_step() for _ in range(12 - stop)] == losses


def test_a_run_of_another_schedule_is_not_resumed(scheduled):
    other = replace(scheduled, colour_dropout=ColourDropout.read([[0, 0.0], [7, 0.5]]))
    constant = replace(scheduled, colour_dropout=None)
    for ours, theirs in ((scheduled, other), (constant, other), (other, constant)):
        with pytest.raises(CheckpointError, match="the run to resume has colour_dropout"):
            Trainer.resume(ours, Trainer(theirs, CPU).checkpoint(), CPU)


def test_a_constant_schedule_is_the_task_without_one(scheduled):
    constant = replace(scheduled, colour_dropout=ColourDropout.read(0.5))
    plain = replace(scheduled, colour_dropout=None)
    Trainer.resume(constant, Trainer(plain, CPU).checkpoint(), CPU)
