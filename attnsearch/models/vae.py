"""The decoder of latent models: a diffusers AutoencoderKL from a folder."""

from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.intake import quote
from attnsearch.models.parts import digest_of, load_part


class Vae:
    """Turns latents into images."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Read it from a folder written by `save_pretrained`, or from the `vae` of a pipeline's.

        Raises:
            CheckpointError: there is none, or its files are damaged.
        """
        inner = folder / "vae" if (folder / "vae").is_dir() else folder
        if not (inner / "config.json").is_file():
            raise CheckpointError(f"{folder} holds no VAE: {inner / 'config.json'} is missing")
        model = load_part(inner, "diffusers", "AutoencoderKL")
        self._model = model.to(device).eval()
        self._scale = _finite(inner, "scaling_factor", model.config.scaling_factor)
        shift = getattr(model.config, "shift_factor", None) or 0.0
        self._shift = _finite(inner, "shift_factor", shift)
        if self._scale == 0:
            raise CheckpointError(f"scaling_factor of the VAE in {inner} is 0")
        self.channels = int(model.config.latent_channels)
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        """Pixels along the side of a latent cell."""
        self.digest = digest_of(inner)

    def check(self, channels: int, side: int, canvas: int) -> None:
        """Refuse a model whose latents it does not decode to images of the size expected.

        Raises:
            ConfigError: naming both.
        """
        if channels != self.channels or side * self.factor != canvas:
            raise ConfigError(
                f"the VAE decodes {self.channels} channels, {self.factor} px a cell; the model "
                f"paints {channels} channels of {side} cells for images of {canvas} px"
            )

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images [sample, rgb, y, x], about [-1, 1], of latents [sample, channel, y, x]."""
        # One at a time: a batch of large images is the peak of a scan's memory.
        return torch.cat(
            [self._model.decode(each[None] / self._scale + self._shift).sample for each in latents]
        )


def _finite(folder: Path, name: str, value: Any) -> float:
    if type(value) not in (int, float) or not isfinite(value):
        raise CheckpointError(f"{name} of the VAE in {folder} is {quote(value)}, not a number")
    return float(value)
