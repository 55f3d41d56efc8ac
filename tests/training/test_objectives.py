from dataclasses import replace

import pytest
import torch

from attnsearch.models import Objective
from attnsearch.training.objectives import noise_batch


@pytest.fixture
def image():
    return torch.rand(256, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def noised(image, config, objective, seed=0, **changes):
    config = replace(config, objective=objective, **changes)
    return noise_batch(image, config, torch.Generator().manual_seed(seed))


def test_under_flow_the_target_leads_back_to_the_image(image, tiny_run):
    batch = noised(image, tiny_run, Objective.FLOW)
    level = (batch.timestep / 1000)[:, None, None, None]
    torch.testing.assert_close(batch.image - level * batch.target, image, rtol=0, atol=1e-5)
    noise = image + batch.target
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_under_epsilon_the_target_leads_back_to_the_image(image, tiny_run):
    batch = noised(image, tiny_run, Objective.EPSILON)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    kept = kept[batch.timestep.long(), None, None, None]
    recovered = (batch.image - (1 - kept).sqrt() * batch.target) / kept.sqrt()
    torch.testing.assert_close(recovered, image.double(), rtol=0, atol=2e-4)
    assert float(batch.target.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("objective", list(Objective))
def test_every_row_has_its_own_noise_and_timestep(image, tiny_run, objective):
    batch = noised(image[:1].expand(256, -1, -1, -1), tiny_run, objective)
    assert len(batch.timestep.unique()) > 200
    assert len(batch.target.flatten(1).unique(dim=0)) == 256
    assert batch.timestep.min() >= 0
    assert batch.timestep.max() <= 1000


def test_epsilon_timesteps_are_uniform_whole_numbers(image, tiny_run):
    timestep = noised(image.repeat(8, 1, 1, 1), tiny_run, Objective.EPSILON).timestep
    assert torch.equal(timestep, timestep.round())
    # 2048 draws: the mean varies by 6.4, the share of each quarter by 1 %.
    assert float(timestep.mean()) == pytest.approx(499.5, abs=26)
    shares = torch.histc(timestep, 4, 0, 1000) / len(timestep)
    assert (shares - 0.25).abs().max() < 0.04


@pytest.mark.parametrize("mean", [-1.0, 0.0, 0.8])
def test_the_noise_level_is_logit_normal_around_its_mean(image, tiny_run, mean):
    batch = noised(image.repeat(8, 1, 1, 1), tiny_run, Objective.FLOW, noise_mean=mean)
    logit = torch.logit(batch.timestep / 1000)
    assert float(logit.mean()) == pytest.approx(mean, abs=0.1)
    assert float(logit.std()) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("objective", list(Objective))
def test_a_seed_gives_the_same_batch_again(image, tiny_run, objective):
    first, second, other = (noised(image, tiny_run, objective, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.image, other.image)
