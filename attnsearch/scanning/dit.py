"""Our own DiT as the subject of a scan, in pixels or behind a VAE."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch

from attnsearch import encoders
from attnsearch.axes import REGIONS, ROLES, Branch, Site
from attnsearch.capturing import capture
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint, DiT, Vae
from attnsearch.models.guidance import Conditioning, branches_of
from attnsearch.prompts import Prompt
from attnsearch.sampling import (
    SamplerConfig,
    Schedule,
    noise_of_seeds,
    sample,
    schedule,
    to_pixels,
)
from attnsearch.scanning.subject import Anatomy, Arrays, Pixels, Samples, Watch
from attnsearch.store import SCORES
from attnsearch.task.captions import Caption, is_held_out, parse
from attnsearch.task.scoring import pool_to_grid, region_weights, score_images


class DiTSubject:
    """A checkpoint of our DiT on a device. Its prompts are captions of the two-object task."""

    roles = ROLES

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, vae: Vae | None = None
    ) -> None:
        """`vae` decodes the latents of a model that paints latents.

        Raises:
            ConfigError: the VAE makes no images of this model's latents; or without one, the
                model paints neither images of its task nor latents that can be looked at.
        """
        self.checkpoint = checkpoint
        self.device = device
        self.vae = vae
        model, canvas = checkpoint.model, checkpoint.task.canvas
        if vae is not None:
            vae.check(model.image_channels, model.image_side, canvas)
        elif model.image_channels < 3 or (self._seen and model.image_side != canvas):
            raise ConfigError(
                f"the model paints {model.image_channels} channels of {model.image_side} px, its "
                f"task has images of {canvas} px; if these are latents, name their --vae"
            )

    @property
    def anatomy(self) -> Anatomy:
        """The checkpoint's; the canvas is its task's, or a latent where nothing decodes."""
        model = self.checkpoint.model
        side = self.checkpoint.task.canvas if self._seen else model.image_side
        return Anatomy(
            site=Site.CROSS,
            layers=model.depth,
            heads=model.heads,
            head_channels=model.width // model.heads,
            grid=(model.grid, model.grid),
            keys=model.text_length,
            canvas=(side, side),
            itemsize=torch.float32.itemsize,  # a checkpoint's model is built in float32
        )

    @property
    def regions(self) -> tuple[str, ...]:
        """The objects and the background, where there are images."""
        return REGIONS if self._seen else ()

    @property
    def scores(self) -> tuple[str, ...]:
        """Those of the two-object task, where there are images."""
        return tuple(SCORES) if self._seen else ()

    @property
    def _seen(self) -> bool:
        """Whether there are images: latents without a VAE are none."""
        return self.vae is not None or self.checkpoint.model.image_channels == 3

    def branches(self, guidance: float) -> tuple[Branch, ...]:
        """Both, unless guidance is off."""
        return branches_of(guidance)

    def schedule(self, sampler: SamplerConfig) -> Schedule:
        """That of the checkpoint's objective."""
        return schedule(self.checkpoint.objective, sampler)

    def coordinates(self, prompts: Sequence[Prompt]) -> Arrays:
        """Which prompts ask for what the task held out."""
        task = self.checkpoint.task
        texts = [prompt.text for prompt in prompts]
        held_out = {text: is_held_out(parse(text), task) for text in dict.fromkeys(texts)}
        return {"held_out": np.array([held_out[text] for text in texts])}

    def attributes(self) -> Mapping[str, Any]:
        """Where the weights come from."""
        checkpoint = self.checkpoint
        return {
            "checkpoint_sha256": checkpoint.digest,
            **({"control": "shuffled weights"} if checkpoint.control else {}),
            "training_step": checkpoint.step,
            "encoder": str(checkpoint.encoder.kind),
            "objective": str(checkpoint.objective),
            "model": asdict(checkpoint.model),
            "task": {
                name: str(value) if isinstance(value, str) else value
                for name, value in asdict(checkpoint.task).items()
            },
            **({} if self.vae is None else {"vae_sha256": self.vae.digest}),
        }

    def prepare(self) -> None:
        """Build the model and its text encoder.

        Raises:
            AttnsearchError: the weights or the encoder cannot be used.
        """
        _ = self._model, self._encoder

    @cached_property
    def _model(self) -> DiT:
        return self.checkpoint.build().to(self.device)

    @cached_property
    def _encoder(self) -> encoders.Encoder:
        return encoders.build(self.checkpoint.encoder)

    def paint(self, samples: Samples, sampler: SamplerConfig, watch: Watch | None) -> Pixels:
        """Images; of latents that nothing decodes, a look at three of their channels."""
        text = self._encoder.encode(_captions(samples))
        conditioning = Conditioning.from_text(text, self.device)
        noise = noise_of_seeds(samples.seeds, self._model).to(self.device)
        arguments = (self._model, self.checkpoint.objective, conditioning, noise, sampler)
        if watch is None:
            latents = sample(*arguments)
        else:
            roles = text.roles.to(self.device)
            with capture(self._model, roles=roles, basis=watch.basis, sink=watch.sink):
                latents = sample(*arguments)
        if self.vae is not None:
            return to_pixels(self.vae.decode(latents))
        if self._seen:
            return to_pixels(latents)
        # A look at latents nobody decodes: three channels, one standard deviation to either side.
        deviation = latents.flatten(1).std(dim=1)
        return to_pixels((latents[:, :3] / deviation[:, None, None, None]).clamp(-1, 1))

    def judge(self, samples: Samples, pixels: Pixels) -> tuple[Pixels, Arrays]:
        """The scores of the two-object task, and the regions where both objects were found."""
        task, grid = self.checkpoint.task, self.checkpoint.model.grid
        scores = score_images(pixels, _captions(samples), task)
        regions = np.full((len(scores), len(REGIONS), grid**2), np.nan, dtype=np.float32)
        for row, score in enumerate(scores):
            if score.binding:
                weights = region_weights(score, task)
                regions[row] = pool_to_grid(weights, task.canvas // grid)
        # A store has true and false only: a colour that is not asked for is not counted as right.
        return regions, {
            name: np.array([bool(getattr(score, name.removeprefix("score_"))) for score in scores])
            for name in SCORES
        }


def _captions(samples: Samples) -> list[Caption]:
    return [parse(prompt.text) for prompt in samples.prompts]
