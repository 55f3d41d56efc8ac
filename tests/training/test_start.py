from dataclasses import replace

import pytest
import torch

from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.models import Objective, load_checkpoint, save_checkpoint
from attnsearch.task.captions import training_captions
from attnsearch.task.spec import PhraseSet, held_out_combinations
from attnsearch.training import Trainer, WarmStart

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tiny_run, tmp_path_factory):
    """A published model of four steps."""
    trainer = Trainer(replace(tiny_run, seed=3), CPU)
    for _ in range(4):
        trainer.take_step()
    path = tmp_path_factory.mktemp("source") / "model.pt"
    save_checkpoint(trainer.checkpoint().slim(), path)
    return WarmStart(name="model", checkpoint=load_checkpoint(path))


@pytest.fixture(scope="module")
def warm(tiny_run, source):
    """A run that begins there."""
    return replace(tiny_run, start=source)


def longer(config, extra):
    """The same run with captions padded to more tokens."""
    length = config.model.text_length + extra
    parts = {
        name: replace(getattr(config, name), text_length=length)
        for name in ("model", "encoder", "task")
    }
    return replace(config, **parts)


def test_weights_begin_as_the_averaged_ones_of_the_source(warm, source):
    trainer = Trainer(warm, CPU)
    assert trainer.step == 0
    expected = source.checkpoint.build().state_dict()
    for weights in (trainer.checkpoint().weights, trainer.checkpoint().average):
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_the_optimisers_begin_afresh(warm):
    assert all(not each["state"] for each in Trainer(warm, CPU).checkpoint().training_state[
        "optimisers"
    ])  # fmt: skip


def test_the_source_is_not_changed_by_the_training(warm, source):
    before = {name: tensor.clone() for name, tensor in source.checkpoint.average.items()}
    trainer = Trainer(warm, CPU)
    trainer.take_step()
    assert all(torch.equal(source.checkpoint.average[name], before[name]) for name in before)


def test_a_checkpoint_says_where_its_training_began(warm, source, tmp_path):
    trainer = Trainer(warm, CPU)
    save_checkpoint(trainer.checkpoint().slim(), tmp_path / "slim.pt")
    origin = load_checkpoint(tmp_path / "slim.pt").origin
    assert (origin.name, origin.digest) == ("model", source.checkpoint.digest)


@pytest.mark.parametrize("extra", [-1, 1, 5])
def test_the_number_of_tokens_may_differ_and_changes_no_prediction(warm, source, extra):
    other = Trainer(longer(warm, extra), CPU)
    known, own = source.checkpoint.build(), other.model
    other_text, text = other._text, Trainer(warm, CPU)._text
    mask = other._text_mask
    length = min(text.shape[1], other_text.shape[1])
    fits = [index for index, row in enumerate(mask) if int(row.sum()) <= length][:6]
    image = torch.randn(len(fits), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    time = torch.full((len(fits),), 500.0)
    trained = Trainer(warm, CPU)._text_mask
    assert len(fits) == 6
    with torch.no_grad():
        for chosen in (
            (text[fits], other_text[fits]),
            (known.null_embedding.expand(6, -1, -1), own.null_embedding.expand(6, -1, -1)),
        ):
            expected = known(image, time, chosen[0], trained[fits])
            found = own(image, time, chosen[1], mask[fits])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_warm_run_resumes_exactly(warm, tmp_path):
    straight, stopped = Trainer(warm, CPU), Trainer(warm, CPU)
    losses = [straight.take_step() for _ in range(8)]
    before = [stopped.take_step() for _ in range(3)]
    save_checkpoint(stopped.checkpoint(), tmp_path / "checkpoint.pt")
    resumed = Trainer.resume(warm, load_checkpoint(tmp_path / "checkpoint.pt"), CPU)
    assert before + [resumed.take_step() for _ in range(5)] == losses


def test_a_run_that_began_elsewhere_is_not_resumed(warm, tiny_run, source):
    elsewhere = WarmStart(name="other", checkpoint=replace(source.checkpoint, digest="0" * 64))
    other = replace(warm, start=elsewhere)
    for ours, theirs, begun in (
        (warm, tiny_run, "began at random, not with model"),
        (tiny_run, warm, "began with model .*, not at random"),
        (warm, other, "began with other .*, not with model"),
    ):
        with pytest.raises(CheckpointError, match=begun):
            Trainer.resume(ours, Trainer(theirs, CPU).checkpoint(), CPU)


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("model", {"mlp_ratio": 3.0}, "its model has mlp_ratio 2.0, this one 3.0"),
        ("model", {"depth": 2}, "its model has depth 1, this one 2"),
        ("encoder", {"seed": 7}, "its encoder has seed"),
    ],
)
def test_a_source_of_another_kind_is_refused(warm, part, change, told):
    with pytest.raises(ConfigError, match=f"cannot start from model: {told}"):
        replace(warm, **{part: replace(getattr(warm, part), **change)})


def test_a_source_of_another_objective_is_refused(warm):
    with pytest.raises(ConfigError, match="has objective flow, this one epsilon"):
        replace(warm, objective=Objective.EPSILON)


def test_what_the_source_was_trained_on_is_not_held_out(warm, source):
    def start(task):
        return replace(warm, task=replace(warm.task, held_out_seed=task))

    with pytest.raises(ConfigError, match=r"trained on .* combinations that this task holds out"):
        start(1)
    everything = replace(source.checkpoint, task=replace(warm.task, held_out_seed=None))
    with pytest.raises(ConfigError, match="holds out; its held_out_seed is None"):
        replace(warm, start=WarmStart(name="model", checkpoint=everything))
    assert held_out_combinations(start(None).task) == frozenset()


def test_other_captions_may_be_learned(warm):
    task = replace(warm.task, phrases=PhraseSet.ALL, colour_dropout=0.5)
    trainer = Trainer(replace(warm, task=task), CPU)
    assert len(trainer._text) == len(training_captions(task))


def test_weights_that_are_not_finite_are_not_begun_with(warm, source):
    average = source.checkpoint.average
    broken = average | {"final.weight": average["final.weight"] * torch.inf}
    start = WarmStart(name="model", checkpoint=replace(source.checkpoint, average=broken))
    with pytest.raises(CheckpointError, match=r"final\.weight holds NaN or infinity"):
        Trainer(replace(warm, start=start), CPU)
