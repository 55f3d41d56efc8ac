"""Training losses: noise an image, and say what the network should have predicted."""

from typing import NamedTuple

import torch
from torch import Tensor

from attnsearch.models import Objective
from attnsearch.training.config import TrainingConfig

_DIFFUSION_STEPS = 1000


class NoisedBatch(NamedTuple):
    """What the network is shown and what it should answer."""

    image: Tensor
    """[row, channel, y, x] noisy images."""
    timestep: Tensor
    """[row] in [0, 1000], what the network is conditioned on."""
    target: Tensor
    """[row, channel, y, x]."""


def noise_batch(image: Tensor, config: TrainingConfig, generator: torch.Generator) -> NoisedBatch:
    """Noise a batch of clean images [row, channel, y, x] under the run's objective.

    Flow: x = (1 - s) image + s noise with logit(s) normal around `noise_mean`, target
    noise - image (rectified flow). Epsilon: x = sqrt(abar) image + sqrt(1 - abar) noise at a
    uniform one of 1000 steps with betas linear from 1e-4 to 0.02, target noise (DDPM).
    """
    rows = len(image)
    noise = torch.randn(image.shape, generator=generator)
    if config.objective is Objective.FLOW:
        level = torch.sigmoid(torch.randn(rows, generator=generator) + config.noise_mean)
        blended = torch.lerp(image, noise, level[:, None, None, None])
        return NoisedBatch(blended, level * _DIFFUSION_STEPS, noise - image)
    step = torch.randint(_DIFFUSION_STEPS, (rows,), generator=generator)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, _DIFFUSION_STEPS), 0)[step]
    kept = kept[:, None, None, None]
    return NoisedBatch(kept.sqrt() * image + (1 - kept).sqrt() * noise, step.float(), noise)
