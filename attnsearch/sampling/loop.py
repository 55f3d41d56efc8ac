"""From noise to images, with the schedulers of diffusers and classifier-free guidance.

A sample is one seed under one prompt: its noise comes from its own generator, so an image does
not depend on what else is in the batch.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnsearch.models import DiT, Objective
from attnsearch.models.guidance import Conditioning, guided_prediction
from attnsearch.sampling.config import SamplerConfig


@dataclass(frozen=True, slots=True)
class Schedule:
    """The noise a sampler passes through, one value per step, step 0 the noisiest."""

    timestep: npt.NDArray[np.float32]
    """What the network is conditioned on, in [0, 1000]."""
    noise_level: npt.NDArray[np.float32]
    """Share of noise s of an image (1 - s) image + s noise up to scale, in [0, 1]: comparable
    between samplers."""


class _Scheduler(Protocol):
    timesteps: Tensor
    sigmas: Tensor

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, *, return_dict: bool
    ) -> tuple[Tensor, ...]: ...


def schedule(objective: Objective, config: SamplerConfig) -> Schedule:
    """The timesteps and noise levels of a sampler."""
    scheduler = _scheduler(objective, config, torch.device("cpu"))
    sigma = scheduler.sigmas[: config.steps].numpy().astype(np.float32)
    # A DDPM sigma is the noise in units of an unscaled image, a flow sigma already the share.
    level = sigma if objective is Objective.FLOW else sigma / (1 + sigma)
    return Schedule(scheduler.timesteps.numpy().astype(np.float32), level)


def noise_of_seeds(seeds: Sequence[int], model: DiT) -> Tensor:
    """Initial noise [sample, channel, y, x], a function of each seed alone."""
    shape = (model.config.image_channels, model.config.image_side, model.config.image_side)
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.no_grad()
def sample(
    model: DiT,
    objective: Objective,
    conditioning: Conditioning,
    noise: Tensor,
    config: SamplerConfig,
) -> Tensor:
    """Images or latents [sample, channel, y, x] from noise of the same shape.

    Flow models take Euler steps, epsilon models DPM-Solver++ of order 2 (the paper's). The
    network is called once a step, for both branches together.
    """
    scheduler = _scheduler(objective, config, noise.device)
    image = noise
    for timestep in scheduler.timesteps:
        prediction = guided_prediction(model, image, float(timestep), conditioning, config.guidance)
        image = scheduler.step(prediction, timestep, image, return_dict=False)[0]
    return image


def to_pixels(images: Tensor) -> npt.NDArray[np.float32]:
    """Images [sample, rgb, y, x], cut to [-1, 1], as [sample, y, x, rgb] in [0, 1]."""
    return ((images.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).float().cpu().numpy()


def _scheduler(objective: Objective, config: SamplerConfig, device: torch.device) -> _Scheduler:
    from diffusers.schedulers import (  # seconds to import
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
    )

    if objective is Objective.FLOW:
        flow = FlowMatchEulerDiscreteScheduler()
        flow.set_timesteps(sigmas=np.linspace(1, 1 / config.steps, config.steps), device=device)
        return flow
    solver = DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    with warnings.catch_warnings():
        # diffusers turns a tensor into an array in a way NumPy is about to drop.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        solver.set_timesteps(config.steps, device=device)
    return solver
