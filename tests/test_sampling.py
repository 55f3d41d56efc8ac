import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attnsearch import encoders
from attnsearch.errors import ConfigError
from attnsearch.models import Objective
from attnsearch.models.guidance import Conditioning
from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample, schedule, to_pixels
from attnsearch.task.captions import grid_captions

OBJECTIVES = list(Objective)


class Oracle(nn.Module):
    """Answers what a perfect model would that has only ever seen one image per row."""

    def __init__(self, images, objective):
        super().__init__()
        self.images = images
        self.objective = objective
        self.null_embedding = torch.zeros(2, 4)
        self.calls = []

    def forward(self, image, timestep, text, mask, branches):
        self.calls.append(float(timestep[0]))
        clean = self.images.repeat(len(branches), 1, 1, 1)
        if self.objective is Objective.FLOW:
            return (image - clean) / (timestep[:, None, None, None] / 1000)
        kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[timestep.long()]
        kept = kept[:, None, None, None]
        return (image - kept.sqrt() * clean) / (1 - kept).sqrt()


def blank_conditioning(samples):
    return Conditioning(torch.zeros(samples, 2, 4), torch.ones(samples, 2, dtype=torch.bool))


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return tiny_checkpoint.build()


@pytest.fixture(scope="module")
def conditioning(tiny_checkpoint):
    text = encoders.build(tiny_checkpoint.encoder).encode(grid_captions(tiny_checkpoint.task)[::27])
    return Conditioning.from_text(text, torch.device("cpu"))


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(steps=st.one_of(st.integers(1, 60), st.sampled_from([500, 998, 999])))
@examples(5, deep=150)
def test_the_noise_falls_from_step_to_step(objective, steps):
    plan = schedule(objective, SamplerConfig(steps=steps))
    assert plan.timestep.shape == plan.noise_level.shape == (steps,)
    assert (np.diff(plan.noise_level) < 0).all()
    assert (np.diff(plan.timestep) < 0).all()
    assert plan.noise_level[0] > 0.99
    assert plan.noise_level[-1] > 0
    assert plan.noise_level.max() <= 1
    assert plan.timestep.min() >= 0
    assert plan.timestep.max() <= 1000


@pytest.mark.parametrize("steps", [1, 4, 14])
def test_flow_timesteps_are_a_thousand_times_evenly_spaced_noise_levels(steps):
    plan = schedule(Objective.FLOW, SamplerConfig(steps=steps))
    np.testing.assert_allclose(plan.noise_level, np.arange(steps, 0, -1) / steps, rtol=1e-6)
    np.testing.assert_allclose(plan.timestep, 1000 * plan.noise_level, rtol=1e-6)


def test_the_fourteen_timesteps_of_the_paper():
    plan = schedule(Objective.EPSILON, SamplerConfig())
    assert plan.timestep.tolist() == [
        999, 928, 856, 785, 714, 642, 571, 500, 428, 357, 285, 214, 143, 71
    ]  # fmt: skip
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[plan.timestep.astype(int)]
    noise, signal = np.sqrt(1 - kept), np.sqrt(kept)
    np.testing.assert_allclose(plan.noise_level, noise / (noise + signal), rtol=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("guidance", [1.0, 4.5])
@pytest.mark.parametrize("steps", [1, 2, 5, 14])
def test_with_perfect_predictions_the_image_comes_out(objective, guidance, steps):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    noise = torch.randn(2, 3, 8, 8, generator=generator)
    oracle = Oracle(images, objective)
    config = SamplerConfig(steps=steps, guidance=guidance)
    painted = sample(oracle, objective, blank_conditioning(2), noise, config)
    torch.testing.assert_close(painted, images, rtol=0, atol=2e-3)
    assert oracle.calls == pytest.approx(schedule(objective, config).timestep.tolist())


def test_latents_may_have_any_range_and_pixels_never_leave_theirs():
    oracle = Oracle(torch.full((1, 3, 4, 4), 7.0), Objective.FLOW)
    noise = torch.randn(1, 3, 4, 4)
    painted = sample(oracle, Objective.FLOW, blank_conditioning(1), noise, SamplerConfig(steps=3))
    torch.testing.assert_close(painted, torch.full((1, 3, 4, 4), 7.0))
    assert np.array_equal(to_pixels(painted), np.ones((1, 4, 4, 3), dtype=np.float32))
    assert np.array_equal(to_pixels(-painted), np.zeros((1, 4, 4, 3), dtype=np.float32))


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_noise_is_a_function_of_the_own_seed_alone(model, seeds):
    together = noise_of_seeds(seeds, model)
    assert together.shape == (len(seeds), 3, 32, 32)
    for row, seed in enumerate(seeds):
        assert torch.equal(noise_of_seeds([seed], model)[0], together[row])


def test_noise_is_standard_normal_and_differs_between_seeds(model):
    noise = noise_of_seeds(range(20), model)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    assert len(noise.flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_image_does_not_depend_on_its_batch(model, conditioning, objective):
    seeds, config = [5, 5, 6, 7], SamplerConfig(steps=4)
    noise = noise_of_seeds(seeds, model)
    together = sample(model, objective, conditioning, noise, config)
    for row in range(4):
        one = Conditioning(*(tensor[row : row + 1] for tensor in conditioning))
        alone = sample(model, objective, one, noise[row : row + 1], config)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=3e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert not torch.allclose(together[1], together[2], atol=1e-3)


def test_sampling_leaves_the_noise_as_it_was(model, conditioning):
    noise = noise_of_seeds([1, 2, 3, 4], model)
    kept = noise.clone()
    sample(model, Objective.FLOW, conditioning, noise, SamplerConfig(steps=2))
    assert torch.equal(noise, kept)


@pytest.mark.parametrize("steps", [0, -3, 1000, 10**6])
def test_a_number_of_steps_out_of_range_is_refused(steps):
    with pytest.raises(ConfigError, match=f"not {steps}$"):
        SamplerConfig(steps=steps)


@pytest.mark.parametrize("guidance", [float("nan"), float("inf")])
def test_a_guidance_that_is_no_number_is_refused(guidance):
    with pytest.raises(ConfigError, match="guidance"):
        SamplerConfig(guidance=guidance)


def test_pixels_are_channels_last_between_zero_and_one():
    images = torch.rand(2, 3, 4, 5) * 2 - 1
    pixels = to_pixels(images)
    assert pixels.shape == (2, 4, 5, 3)
    assert pixels[1, 2, 3, 0] == pytest.approx((float(images[1, 0, 2, 3]) + 1) / 2)
    assert to_pixels(torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None]).ravel().tolist() == [
        0, 0.5, 1
    ]  # fmt: skip
