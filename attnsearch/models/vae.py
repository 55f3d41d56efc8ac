"""The decoder of latent models: a diffusers AutoencoderKL from a folder."""

from pathlib import Path

import torch
from torch import Tensor

from attnsearch.errors import CheckpointError, ConfigError
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
        self._scale = float(model.config.scaling_factor)
        self._shift = float(getattr(model.config, "shift_factor", None) or 0.0)
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
