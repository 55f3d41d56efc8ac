"""What can be scanned: a model that paints prompts while its attention is watched.

Plans and stores know models only as described here; each kind of model has a module of its own
(`dit`, `pipeline`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnsearch.axes import Branch, Site
from attnsearch.capturing import SketchRecord
from attnsearch.prompts import Prompt
from attnsearch.sampling import SamplerConfig, Schedule

Arrays = dict[str, npt.NDArray[Any]]
Pixels = npt.NDArray[np.float32]
"""Images [sample, y, x, rgb] in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The sizes of a model's watched attention, and of its images."""

    site: Site
    """Where its keys are from."""
    layers: int
    heads: int
    head_channels: int
    grid: tuple[int, int]
    """Image tokens, height and width."""
    keys: int
    """Keys of an attention call: text tokens, in joint attention image tokens too."""
    canvas: tuple[int, int]
    """Height and width of a stored image, pixels."""
    itemsize: int
    """Bytes of a number in an attention call."""


class Samples(NamedTuple):
    """What one batch shows: a prompt and a seed each."""

    prompts: Sequence[Prompt]
    seeds: Sequence[int]


class Watch(NamedTuple):
    """How its attention is sketched while a batch is sampled."""

    roles: tuple[str, ...]
    """Columns of Gamma."""
    basis: Tensor
    """Phi [image token, basis], on the device."""
    sink: Callable[[SketchRecord], None]


class Subject(Protocol):
    """A model that can be scanned."""

    device: torch.device

    @property
    def anatomy(self) -> Anatomy:
        """Sizes, known before anything is sampled."""

    @property
    def roles(self) -> tuple[str, ...] | None:
        """The roles of its prompts where its task fixes them; None where prompts decide."""

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions found in its images; empty where nothing looks for any."""

    @property
    def scores(self) -> tuple[str, ...]:
        """What its images are scored on."""

    def branches(self, guidance: float) -> tuple[Branch, ...]:
        """The branches a guidance weight evaluates."""

    def schedule(self, sampler: SamplerConfig) -> Schedule:
        """The noise that sampling passes through."""

    def coordinates(self, prompts: Sequence[Prompt]) -> Arrays:
        """What it knows of prompts beside their attributes; by coordinate name, [sample]."""

    def attributes(self) -> Mapping[str, Any]:
        """What a store records of it, `checkpoint_sha256` among it."""

    def prepare(self) -> None:
        """Build what sampling needs, once.

        Raises:
            AttnsearchError: the weights cannot be used.
        """

    def paint(self, samples: Samples, sampler: SamplerConfig, watch: Watch | None) -> Pixels:
        """Sample images of any size; with `watch`, sketch every watched map on the way."""

    def judge(self, samples: Samples, pixels: Pixels) -> tuple[Pixels, Arrays]:
        """Region weights [sample, region, image token], NaN where not found; scores by name."""
