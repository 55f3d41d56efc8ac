"""A pipeline of diffusers as the subject of a scan."""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from attnsearch.axes import Branch
from attnsearch.capturing import capture
from attnsearch.capturing.regions import Segmenter, pool_masks
from attnsearch.errors import AttnsearchError, ConfigError
from attnsearch.models.families import find_denoiser
from attnsearch.models.parts import digest_of, reason
from attnsearch.models.pipelines import (
    Forecast,
    call_settings,
    forecast,
    load_pipeline,
    pipeline_files,
    role_tokens,
)
from attnsearch.prompts import Prompt, roles_of
from attnsearch.sampling import SamplerConfig, Schedule
from attnsearch.scanning.memory import is_out_of_memory
from attnsearch.scanning.subject import Anatomy, Arrays, Pixels, Samples, Watch

_THUMBNAIL: Final = 128
"""Longer side of a stored image, pixels."""


class PipelineSubject:
    """A pipeline folder on a device. Prompts are free, and users find objects, if anyone does."""

    roles = None
    scores = ()

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        *,
        size: int | None = None,
        segmenter: Segmenter | None = None,
        regions: Sequence[str] = (),
    ) -> None:
        """`size` is the side of the square image in pixels; by default the pipeline's own.

        `segmenter` finds the `regions` in each finished image.

        Raises:
            AttnsearchError: the folder cannot be read, its transformer cannot be watched, or there
                is a segmenter without regions, or the other way round.
        """
        if (segmenter is None) == bool(regions):
            raise ConfigError("a segmenter and the names of the regions it finds go together")
        self.device = device
        self.regions = tuple(regions)
        self._segmenter = segmenter
        self._folder = folder
        self._size = size
        self._pipe = load_pipeline(folder, device)
        self._family, self._denoiser = find_denoiser(self._pipe)
        self._forecast = cache(self._run_forecast)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Read off the transformer and off what a sampling would run."""
        layers = self._family.layers(self._denoiser)
        heads = {layer.heads for layer in layers}
        if len(heads) > 1:
            raise ConfigError(f"layers of {self._family.model} differ in their heads: {heads}")
        expected = self._forecast(SamplerConfig())
        height, width = expected.grid
        longer = max(height, width)
        return Anatomy(
            site=self._family.site,
            layers=len(layers),
            heads=heads.pop(),
            head_channels=expected.head_channels,
            grid=(height, width),
            keys=expected.keys,
            canvas=(
                max(1, _THUMBNAIL * height // longer),
                max(1, _THUMBNAIL * width // longer),
            ),
            itemsize=expected.itemsize,
        )

    def branches(self, guidance: float) -> tuple[Branch, ...]:
        """Those of the pipeline's forward passes; distilled models have one."""
        return self._forecast(SamplerConfig(guidance=guidance)).branches

    def schedule(self, sampler: SamplerConfig) -> Schedule:
        """That of the pipeline's own scheduler.

        Raises:
            ConfigError: it takes another number of steps.
        """
        expected = self._forecast(sampler)
        if len(expected.timestep) != sampler.steps:
            raise ConfigError(
                f"{type(self._pipe.scheduler).__name__} takes {len(expected.timestep)} steps "
                f"where {sampler.steps} were asked for"
            )
        return Schedule(expected.timestep, expected.noise_level)

    def coordinates(self, prompts: Sequence[Prompt]) -> Arrays:
        """None beside what the prompts say.

        Raises:
            ConfigError: a prompt is longer than the model reads.
        """
        different = list({prompt.text: prompt for prompt in prompts}.values())
        texts = self._forecast(SamplerConfig()).texts
        role_tokens(self._pipe, different, roles_of(different), texts)
        return {}

    def attributes(self) -> Mapping[str, Any]:
        """Where the weights come from, and the classes that run them."""
        return {
            "checkpoint_sha256": digest_of(self._folder, pipeline_files(self._folder)),
            "pipeline": type(self._pipe).__name__,
            "transformer": type(self._denoiser).__name__,
            "scheduler": type(self._pipe.scheduler).__name__,
            "size": self._size or "default",
            **({} if self._segmenter is None else {"segmenter": _name_of(self._segmenter)}),
        }

    def facts(self) -> Mapping[str, Any]:
        """What it is, by the words in which a user is told; nothing is sampled."""
        pipe, anatomy = self._pipe, self.anatomy
        return {
            "kind": "pipeline",
            "pipeline": type(pipe).__name__,
            "family": self._family.name,
            "transformer": type(self._denoiser).__name__,
            "parameters": sum(weight.numel() for weight in self._denoiser.parameters()),
            "scheduler": type(pipe.scheduler).__name__,
            "attention": str(self._family.site),
            "layers": anatomy.layers,
            "heads": anatomy.heads,
            "channels of a head": anatomy.head_channels,
            "grid": list(anatomy.grid),
            "text tokens": sum(self._forecast(SamplerConfig()).texts),
        }

    def prepare(self) -> None:
        """Nothing is left to build."""

    def paint(self, samples: Samples, sampler: SamplerConfig, watch: Watch | None) -> Pixels:
        """Images as the pipeline makes them."""
        settings = self._settings(sampler)
        arguments = {
            "prompt": [prompt.text for prompt in samples.prompts],
            "generator": [torch.Generator().manual_seed(seed) for seed in samples.seeds],
            "output_type": "np",
            **settings,
        }
        if watch is None:
            images = self._call(arguments)
        else:
            texts = self._forecast(sampler).texts
            gamma = role_tokens(self._pipe, samples.prompts, watch.roles, texts)
            roles = {branch: rows.to(self.device) for branch, rows in gamma.items()}
            with capture(self._denoiser, roles=roles, basis=watch.basis, sink=watch.sink):
                images = self._call(arguments)
        return np.asarray(images, dtype=np.float32)

    def _call(self, arguments: Mapping[str, Any]) -> Any:
        name = type(self._pipe).__name__
        seeds = [generator.initial_seed() for generator in arguments["generator"]]
        # Some schedulers draw from the generator of the process: from here on it is the batch's.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds[0])
            try:
                return self._pipe(**arguments).images
            except AttnsearchError:
                raise
            except Exception as error:  # whatever a pipeline of any kind may run into
                if is_out_of_memory(error):
                    raise
                raise ConfigError(f"{name} cannot paint: {reason(error)}") from error

    def judge(self, samples: Samples, pixels: Pixels) -> tuple[Pixels, Arrays]:
        """What the segmenter finds; there are no scores.

        Raises:
            ConfigError: it finds a region that was not announced, or something that is no mask.
        """
        find = self._segmenter
        found = [
            {} if find is None else find(image.astype(np.float64), prompt)
            for image, prompt in zip(pixels, samples.prompts, strict=True)
        ]
        return pool_masks(found, self.regions, self.anatomy.grid).astype(np.float32), {}

    def _settings(self, sampler: SamplerConfig) -> dict[str, Any]:
        return call_settings(
            self._pipe, steps=sampler.steps, guidance=sampler.guidance, size=self._size
        )

    def _run_forecast(self, sampler: SamplerConfig) -> Forecast:
        return forecast(self._pipe, self._settings(sampler))


def _name_of(segmenter: Segmenter) -> str:
    """What a store records of a function, so that a scan is not continued with another."""
    return str(getattr(segmenter, "__qualname__", type(segmenter).__qualname__))
