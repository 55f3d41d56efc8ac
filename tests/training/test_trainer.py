from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.models import Objective, load_checkpoint, save_checkpoint
from attnsearch.training import Trainer
from attnsearch.training.trainer import _optimisers

CPU = torch.device("cpu")


def steps(trainer, count):
    return [trainer.take_step() for _ in range(count)]


def assert_equal_weights(first, second):
    for kind in ("weights", "average"):
        one, other = getattr(first, kind), getattr(second, kind)
        assert one.keys() == other.keys()
        different = [name for name in one if not torch.equal(one[name], other[name])]
        assert different == [], kind


@pytest.mark.parametrize("objective", list(Objective))
def test_the_loss_falls(tiny_run, objective):
    config = replace(
        tiny_run,
        model=replace(tiny_run.model, width=64, patch=4),
        objective=objective,
        steps=60,
        batch=16,
        cooldown=0.0,
    )
    losses = steps(Trainer(config, CPU), 60)
    # A model that answers zero has a loss of at least the noise's variance, 1.
    assert sum(losses[:3]) / 3 > 0.9
    assert sum(losses[-10:]) / 10 < 0.5


def test_a_seed_gives_the_same_run_again(tiny_run):
    first, second, other = (Trainer(replace(tiny_run, seed=s), CPU) for s in (1, 1, 2))
    assert steps(first, 3) == steps(second, 3)
    assert_equal_weights(first.checkpoint(), second.checkpoint())
    assert steps(other, 1) != steps(first, 1)


@pytest.mark.parametrize("stop", [1, 7])
@pytest.mark.parametrize("objective", list(Objective))
def test_a_run_stopped_and_resumed_is_the_run_uninterrupted(tiny_run, tmp_path, objective, stop):
    config = replace(tiny_run, objective=objective)
    straight = Trainer(config, CPU)
    losses = steps(straight, 12)

    stopped = Trainer(config, CPU)
    before = steps(stopped, stop)
    save_checkpoint(stopped.checkpoint(), tmp_path / "checkpoint.pt")
    resumed = Trainer.resume(config, load_checkpoint(tmp_path / "checkpoint.pt"), CPU)
    assert resumed.step == stop
    after = steps(resumed, 12 - stop)

    assert before + after == losses
    assert resumed.step == straight.step == 12
    assert_equal_weights(resumed.checkpoint(), straight.checkpoint())


def test_a_saved_state_is_not_touched_by_the_steps_after_it(tiny_run, tmp_path):
    trainer = Trainer(tiny_run, CPU)
    steps(trainer, 2)
    save_checkpoint(trainer.checkpoint(), tmp_path / "checkpoint.pt")
    loaded = load_checkpoint(tmp_path / "checkpoint.pt")
    steps(Trainer.resume(tiny_run, loaded, CPU), 2)
    assert_equal_weights(Trainer.resume(tiny_run, loaded, CPU).checkpoint(), trainer.checkpoint())


@pytest.mark.parametrize(
    ("name", "change"),
    [("model", {"mlp_ratio": 3.0}), ("encoder", {"seed": 1}), ("task", {"radius": 5})],
)
def test_a_run_on_anything_else_is_not_resumed(tiny_run, name, change):
    checkpoint = Trainer(tiny_run, CPU).checkpoint()
    config = replace(tiny_run, **{name: replace(getattr(tiny_run, name), **change)})
    with pytest.raises(CheckpointError, match=f"another {name}"):
        Trainer.resume(config, checkpoint, CPU)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 5), ("batch", 4), ("learning_rate", 0.001), ("matrix_learning_rate", 0.01)],
)
def test_a_run_with_other_settings_is_not_resumed(tiny_run, name, value):
    checkpoint = Trainer(tiny_run, CPU).checkpoint()
    with pytest.raises(CheckpointError, match=f"has {name} .*, not {value}"):
        Trainer.resume(replace(tiny_run, **{name: value}), checkpoint, CPU)


def test_a_published_model_is_not_resumed(tiny_run):
    published = replace(Trainer(tiny_run, CPU).checkpoint(), training_state=None)
    with pytest.raises(CheckpointError, match="published"):
        Trainer.resume(tiny_run, published, CPU)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5])
def test_the_null_condition_replaces_its_share_of_captions(tiny_run, probability):
    trainer = Trainer(replace(tiny_run, null_probability=probability, batch=128), CPU)
    texts = []
    trainer.model.caption_mlp.register_forward_pre_hook(lambda _, inputs: texts.append(inputs[0]))
    null = trainer.model.null_embedding.clone()
    steps(trainer, 8)
    dropped = (torch.cat(texts) == null).all(-1).all(-1)
    assert len(dropped) == 1024
    deviation = (probability * (1 - probability) / 1024) ** 0.5
    assert abs(float(dropped.float().mean()) - probability) <= 4 * deviation


def test_the_null_embedding_is_not_trained(tiny_run):
    trainer = Trainer(replace(tiny_run, null_probability=0.5), CPU)
    null = trainer.model.null_embedding.clone()
    steps(trainer, 3)
    assert torch.equal(trainer.model.null_embedding, null)
    torch.testing.assert_close(trainer.average["null_embedding"], null)


def test_every_weight_is_trained_by_exactly_one_optimiser(tiny_run):
    model = Trainer(tiny_run, CPU).model
    held = [p for each in _optimisers(model, tiny_run) for g in each.param_groups
            for p in g["params"]]  # fmt: skip
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


def test_every_weight_moves(tiny_run):
    trainer = Trainer(tiny_run, CPU)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    steps(trainer, 4)
    # A shift common to all keys moves every logit alike, so softmax gives it no gradient.
    still = [
        name
        for name, parameter in trainer.model.named_parameters()
        if torch.equal(parameter, before[name]) and not name.endswith("attention.key.bias")
    ]
    assert still == []


def test_the_average_follows_the_weights_at_its_decay(tiny_run):
    trainer = Trainer(replace(tiny_run, average_decay=0.05), CPU)
    steps(trainer, 2)
    before = {name: tensor.clone() for name, tensor in trainer.average.items()}
    steps(trainer, 1)
    for name, weight in trainer.model.state_dict().items():
        expected = 0.05 * before[name] + 0.95 * weight
        torch.testing.assert_close(trainer.average[name], expected)


def test_a_young_average_is_not_the_initial_noise(tiny_run):
    trainer = Trainer(replace(tiny_run, average_decay=0.9999), CPU)
    start = {name: tensor.clone() for name, tensor in trainer.average.items()}
    steps(trainer, 12)
    name = "blocks.0.mlp.0.weight"
    weight = trainer.model.state_dict()[name]
    assert (trainer.average[name] - weight).norm() < 0.5 * (start[name] - weight).norm()


RUNS = {"steps": st.integers(1, 400), "warmup": st.integers(0, 100), "cooldown": st.floats(0, 0.9)}


@given(**RUNS)
def test_the_rate_rises_stays_and_falls(tiny_run, steps, warmup, cooldown):
    config = replace(tiny_run, steps=steps, warmup=warmup, cooldown=cooldown)
    factors = [config.rate_factor(step) for step in range(steps)]
    assert min(factors) > 0
    assert max(factors) <= 1
    top = factors.index(max(factors))
    assert all(a <= b for a, b in pairwise(factors[: top + 1]))
    assert all(a >= b for a, b in pairwise(factors[top:]))


def test_the_rate_is_full_between_warm_up_and_cool_down(tiny_run):
    config = replace(tiny_run, steps=100, warmup=9, cooldown=0.2)
    factors = [config.rate_factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[9:81] == [1.0] * 72
    assert factors[80:] == pytest.approx([(100 - step) / 20 for step in range(80, 100)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch": 0}, {"save_every": 0}, {"evaluate_every": -1},
        {"average_decay": 1.0}, {"null_probability": -0.1}, {"cooldown": 1.0},
        {"gradient_clip": 0.0}, {"gradient_clip": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range_are_named(tiny_run, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        replace(tiny_run, **wrong)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"image_side": 40}),
        ("model", {"text_channels": 8}),
        ("model", {"text_length": 9}),
        ("encoder", {"channels": 8}),
        ("encoder", {"text_length": 9}),
        ("task", {"canvas": 40}),
    ],
)
def test_parts_that_contradict_each_other_are_refused(tiny_run, part, change):
    with pytest.raises(ConfigError):
        replace(tiny_run, **{part: replace(getattr(tiny_run, part), **change)})


@pytest.fixture(scope="module")
def stopped(tiny_run):
    """A run of three steps."""
    trainer = Trainer(tiny_run, CPU)
    steps(trainer, 3)
    return trainer.checkpoint()


def _with_memory(state, *, optimiser, change):
    """The same training state, with other tables in the memory of an optimiser."""
    saved = [dict(each) for each in state["optimisers"]]
    saved[optimiser] |= change(saved[optimiser])
    return state | {"optimisers": saved}


def _first_memory(change):
    def changed(saved):
        memory = dict(saved["state"])
        memory[0] = change(memory[0])
        return {"state": memory}

    return changed


def _settings(**changes):
    return lambda saved: {"param_groups": [saved["param_groups"][0] | changes]}


DAMAGE = {
    "no optimisers": lambda s: {k: v for k, v in s.items() if k != "optimisers"},
    "one optimiser": lambda s: s | {"optimisers": s["optimisers"][:1]},
    "other optimisers": lambda s: s | {"optimisers": s["optimisers"][::-1]},
    "a number": lambda s: s | {"optimisers": 3},
    "no generator": lambda s: s | {"generator": None},
    "short generator": lambda s: s | {"generator": s["generator"][:100]},
    "zero generator": lambda s: s | {"generator": torch.ones_like(s["generator"]) * 255},
    "no memory": lambda s: _with_memory(s, optimiser=0, change=lambda _: {"state": None}),
    "a memory of another": lambda s: _with_memory(
        s, optimiser=0, change=_first_memory(lambda m: {"exp_avg": m["momentum"]})
    ),
    "more memory": lambda s: _with_memory(
        s, optimiser=1, change=_first_memory(lambda m: m | {"more": m["exp_avg"]})
    ),
    "a shape": lambda s: _with_memory(
        s, optimiser=1, change=_first_memory(lambda m: m | {"exp_avg": torch.ones(7)})
    ),
    "a type": lambda s: _with_memory(
        s, optimiser=0, change=_first_memory(lambda m: {"momentum": m["momentum"].long()})
    ),
    "a word": lambda s: _with_memory(
        s, optimiser=1, change=_first_memory(lambda m: m | {"step": "3"})
    ),
    "nan": lambda s: _with_memory(
        s, optimiser=0, change=_first_memory(lambda m: {"momentum": m["momentum"] * torch.nan})
    ),
    "a parameter too many": lambda s: _with_memory(
        s, optimiser=0, change=lambda saved: {"state": saved["state"] | {999: saved["state"][0]}}
    ),
    "betas": lambda s: _with_memory(s, optimiser=1, change=_settings(betas=("a", "b"))),
    "momentum": lambda s: _with_memory(s, optimiser=0, change=_settings(momentum=float("nan"))),
    "initial_lr": lambda s: _with_memory(s, optimiser=0, change=_settings(initial_lr="0.1")),
    "groups": lambda s: _with_memory(s, optimiser=0, change=lambda _: {"param_groups": []}),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_training_state_is_refused(stopped, tiny_run, name):
    state = DAMAGE[name](stopped.training_state)
    with pytest.raises(CheckpointError, match="training state to resume is damaged") as caught:
        Trainer.resume(tiny_run, replace(stopped, training_state=state), CPU)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "change", [None, {}, {"seed": "0"}, {"seed": True}, {"batch": 8.0}, {"more": 1}], ids=str
)
def test_settings_of_another_kind_are_refused(stopped, tiny_run, change):
    settings = stopped.training_state["settings"] | change if change else change
    state = stopped.training_state | {"settings": settings}
    with pytest.raises(CheckpointError, match="the run to resume has"):
        Trainer.resume(tiny_run, replace(stopped, training_state=state), CPU)


@pytest.mark.parametrize("field", ["weights", "average"])
def test_weights_that_are_not_finite_are_not_trained_on(stopped, tiny_run, field):
    weights = getattr(stopped, field)
    broken = weights | {"final.weight": weights["final.weight"] * torch.inf}
    with pytest.raises(CheckpointError, match=r"final\.weight holds NaN or infinity"):
        Trainer.resume(tiny_run, replace(stopped, **{field: broken}), CPU)


def test_the_learning_rate_of_a_state_does_not_matter(stopped, tiny_run):
    """It is worked out at every step."""
    state = _with_memory(stopped.training_state, optimiser=1, change=_settings(lr="fast"))
    other = replace(stopped, training_state=deepcopy(state))
    resumed = Trainer.resume(tiny_run, other, CPU)
    expected = Trainer.resume(tiny_run, deepcopy(stopped), CPU)
    assert steps(resumed, 2) == steps(expected, 2)


def test_the_average_follows_names_whatever_order_a_checkpoint_has_them_in(tiny_run):
    straight, turned = Trainer(tiny_run, CPU), Trainer(tiny_run, CPU)
    turned.average = dict(reversed(turned.average.items()))
    for trainer in (straight, turned):
        trainer.take_step()
    for name, wanted in straight.average.items():
        assert torch.equal(turned.average[name], wanted), name
