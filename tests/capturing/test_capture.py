from itertools import product
from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch import encoders
from attnsearch.axes import Branch, Site
from attnsearch.capturing import Selection, capture
from attnsearch.errors import ConfigError
from attnsearch.models import Attention, plain_attention
from attnsearch.models.guidance import Conditioning, guided_prediction
from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample
from attnsearch.task.captions import grid_captions
from attnsearch_kernels import dct2

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
STATISTICS = ("sketch", "entropy", "peak", "energy")
BOTH = (Branch.UNCOND, Branch.COND)
SAMPLES = 3


class Setting:
    """A model, three samples of it, and the ways to run them."""

    def __init__(self, checkpoint):
        self.checkpoint = checkpoint
        self.model = checkpoint.build()
        captions = grid_captions(checkpoint.task)[4::43]  # captions of different lengths
        text = encoders.build(checkpoint.encoder).encode(captions)
        self.roles = text.roles
        self.conditioning = Conditioning.from_text(text, torch.device("cpu"))
        self.noise = noise_of_seeds(range(SAMPLES), self.model)
        self.grid = checkpoint.model.grid
        self.basis = dct2(self.grid, self.grid, 3)

    def predict(self, guidance=4.5, timestep=700.0):
        return guided_prediction(self.model, self.noise, timestep, self.conditioning, guidance)

    def capture(self, sink, **changes):
        asked = {"roles": self.roles, "basis": self.basis, "sink": sink} | changes
        return capture(self.model, **asked)

    def records(self, runs=1, guidance=4.5, **changes):
        """What is recorded of some forward passes at falling timesteps."""
        records = []
        with self.capture(records.append, **changes):
            for run in range(runs):
                self.predict(guidance, 900.0 - 300 * run)
        return records

    def assert_restored(self):
        attentions = [m for m in self.model.modules() if isinstance(m, Attention)]
        assert len(attentions) == 4
        assert all(module.attend is plain_attention for module in attentions)
        assert not self.model._forward_pre_hooks


@pytest.fixture(scope="module")
def setting(tiny_checkpoint):
    return Setting(tiny_checkpoint)


@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
def test_the_output_is_that_of_the_model_not_watched(setting, guidance, backend):
    expected = setting.predict(guidance)
    with setting.capture(lambda record: None, backend=backend):
        watched = setting.predict(guidance)
    torch.testing.assert_close(watched, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(setting.predict(guidance), expected)


def test_whole_images_are_those_of_the_model_not_watched(setting):
    how = (setting.checkpoint.objective, setting.conditioning, setting.noise)
    config = SamplerConfig(steps=4)
    expected = sample(setting.model, *how, config)
    records = []
    with setting.capture(records.append):
        watched = sample(setting.model, *how, config)
    torch.testing.assert_close(watched, expected, **CLOSE)
    assert {record.step for record in records} == {0, 1, 2, 3}


def test_there_is_one_record_per_step_layer_and_branch(setting):
    places = [(r.step, r.layer, r.branch) for r in setting.records(runs=3)]
    assert len(places) == len(set(places))
    assert set(places) == set(product(range(3), range(2), BOTH))
    alone = [(r.step, r.layer, r.branch) for r in setting.records(guidance=1.0)]
    assert alone == [(0, 0, Branch.COND), (0, 1, Branch.COND)]


def test_records_have_the_shapes_they_say(setting):
    for record in setting.records():
        assert record.heads == (0, 1)
        assert record.sketch.shape == (SAMPLES, 2, 8, 9)
        assert record.entropy.shape == record.peak.shape == (SAMPLES, 2)
        assert record.energy.shape == (SAMPLES, 2, 8)
        assert all(getattr(record, name).dtype == torch.float32 for name in STATISTICS)


def test_sketches_summed_over_roles_are_the_transform_of_ones(setting):
    ones = setting.basis.sum(0)
    assert float(ones[0]) == pytest.approx(sqrt(setting.grid**2))
    for record in setting.records(runs=2):
        total = record.sketch.sum(2)
        torch.testing.assert_close(total, ones.expand_as(total), rtol=0, atol=1e-5)


def maps_of(setting, guidance):
    """The maps [row, head, query, key] of one forward pass, by layer, in float64."""
    maps = {}

    def spy(call):
        scores = call.query.double() @ call.key.double().mT * call.scale
        scores = scores.masked_fill(~call.key_mask[:, None, None, :], -torch.inf)
        maps[call.layer] = scores.softmax(-1)
        return plain_attention(call)

    modules = setting.model.attention_modules(Site.CROSS)
    for module in modules:
        module.attend = spy
    try:
        setting.predict(guidance, 900.0)
    finally:
        for module in modules:
            module.attend = plain_attention
    return maps


@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_records_are_what_the_maps_give_by_hand(setting, guidance):
    maps = maps_of(setting, guidance)
    branches = BOTH if guidance != 1 else BOTH[1:]
    records = setting.records(guidance=guidance)
    assert len(records) == 2 * len(branches)
    for record in records:
        first = SAMPLES * branches.index(record.branch)
        chosen = maps[record.layer][first : first + SAMPLES]
        mass = chosen @ setting.roles.double()[:, None]
        expected = {
            "sketch": (setting.basis.double().T @ mass).mT,
            "entropy": torch.special.entr(chosen).sum(-1).mean(-1),
            "peak": chosen.amax(-1).mean(-1),
            "energy": mass.square().sum(-2),
        }
        for name, value in expected.items():
            torch.testing.assert_close(getattr(record, name).double(), value, **CLOSE)


def test_a_branch_is_recorded_as_if_it_ran_alone(setting):
    guided = {(r.layer, r.branch): r for r in setting.records()}
    conditional = setting.records(guidance=1.0)
    null = setting.model.null_embedding.expand_as(setting.conditioning.text)
    unconditional = []
    with setting.capture(unconditional.append):
        conditioning = setting.conditioning._replace(text=null)
        guided_prediction(setting.model, setting.noise, 900.0, conditioning, 1.0)
    for branch, alone in ((Branch.COND, conditional), (Branch.UNCOND, unconditional)):
        for record in alone:
            together = guided[record.layer, branch]
            for name in STATISTICS:
                torch.testing.assert_close(getattr(together, name), getattr(record, name), **CLOSE)
    different = guided[0, Branch.COND].sketch - guided[0, Branch.UNCOND].sketch
    assert different.abs().max() > 1e-3


def test_a_sample_is_recorded_as_if_it_ran_alone(setting):
    for row in range(SAMPLES):
        one = slice(row, row + 1)
        alone = []
        with setting.capture(alone.append, roles=setting.roles[one]):
            conditioning = Conditioning(*(tensor[one] for tensor in setting.conditioning))
            guided_prediction(setting.model, setting.noise[one], 900.0, conditioning, 4.5)
        for record, together in zip(alone, setting.records(), strict=True):
            for name in STATISTICS:
                expected = getattr(together, name)[one]
                torch.testing.assert_close(getattr(record, name), expected, **CLOSE)


def some_of(values):
    return st.none() | st.lists(st.sampled_from(values), unique=True)


@given(some_of([0, 1]), some_of([1, 0]), some_of([0, 2, 7]), some_of(list(Branch)))
def test_a_selection_records_its_part_of_everything(setting, layers, heads, steps, branches):
    expected = {(r.step, r.layer, r.branch): r for r in setting.records(runs=3)}
    selection = Selection(layers=layers, heads=heads, steps=steps, branches=branches)
    records = setting.records(runs=3, selection=selection)
    assert [(r.step, r.layer, r.branch) for r in records] == [
        (step, layer, branch)
        for step, layer, branch in expected
        if (layers is None or layer in layers)
        and (steps is None or step in steps)
        and (branches is None or branch in branches)
    ]
    chosen = [0, 1] if heads is None else heads
    for record in records:
        assert record.heads == tuple(chosen)
        for name in STATISTICS:
            whole = getattr(expected[record.step, record.layer, record.branch], name)
            torch.testing.assert_close(getattr(record, name), whole[:, chosen], **CLOSE)


@given(some_of([0, 1]), some_of([0]), some_of(list(Branch)))
def test_a_selection_does_not_change_the_output(setting, layers, steps, branches):
    expected = setting.predict()
    selection = Selection(layers=layers, steps=steps, branches=branches)
    with setting.capture(lambda record: None, selection=selection):
        watched = setting.predict()
    torch.testing.assert_close(watched, expected, rtol=1e-5, atol=1e-5)


def test_the_model_is_restored_on_leaving(setting):
    with setting.capture(lambda record: None):
        modules = setting.model.attention_modules(Site.CROSS)
        assert all(module.attend is not plain_attention for module in modules)
    setting.assert_restored()
    assert len(setting.records()) == 4


def test_only_cross_attention_is_routed(setting):
    with setting.capture(lambda record: None):
        modules = setting.model.attention_modules(Site.SELF)
        assert all(module.attend is plain_attention for module in modules)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_model_is_restored_when_the_sink_fails(setting, error):
    def fail(record):
        raise error("no room")

    with pytest.raises(error, match="no room"), setting.capture(fail):
        setting.predict()
    setting.assert_restored()


def test_the_model_is_restored_when_the_block_fails(setting):
    with pytest.raises(ZeroDivisionError), setting.capture(lambda record: None):
        setting.predict(guidance=1 / 0)
    setting.assert_restored()


def test_captures_do_not_nest_and_the_outer_one_goes_on(setting):
    records = []
    with setting.capture(records.append):
        with pytest.raises(ConfigError, match="nest"), setting.capture(lambda record: None):
            pass
        setting.predict()
    assert len(records) == 4
    setting.assert_restored()


def test_steps_are_counted_from_zero_in_every_capture(setting):
    for _ in range(2):
        assert [r.step for r in setting.records(runs=2, guidance=1.0)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(layers=[0, 2]), "layer 2 does not exist; the model has 2"),
        (Selection(layers=[-1]), "layer -1"),
        (Selection(heads=[2]), "head 2 does not exist; the model has 2"),
        (Selection(heads=[-1]), "head -1"),
    ],
)
def test_a_layer_or_head_that_does_not_exist_is_named(setting, selection, message):
    with pytest.raises(ConfigError, match=message), setting.capture(print, selection=selection):
        pass
    setting.assert_restored()


@pytest.mark.parametrize("samples", [0, SAMPLES - 1, SAMPLES + 1, 2 * SAMPLES])
def test_roles_for_another_number_of_samples_are_refused(setting, samples):
    roles = setting.roles[:1].expand(samples, -1, -1)
    with pytest.raises(ConfigError, match=f"{samples} samples"):
        setting.records(roles=roles)
    setting.assert_restored()


def test_a_model_of_no_family_is_refused_by_name():
    class Paper(torch.nn.Module):
        def attention_modules(self, site):
            return [Attention(4, 1, 0, site)]

    roles, basis = torch.eye(8)[None], dct2(2, 2, 1)
    with pytest.raises(ConfigError, match="Paper cannot be watched"):
        capture(Paper(), roles=roles, basis=basis, sink=print).__enter__()


def test_a_basis_of_another_grid_is_refused(setting):
    with pytest.raises(ConfigError, match=f"grid of {setting.grid} x {setting.grid}"):
        setting.records(basis=dct2(3, 2, 1))
    setting.assert_restored()
