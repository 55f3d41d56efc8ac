"""Which later heads lose their sense of place when earlier ones are switched off.

A head that puts objects on the asked side has logits that prefer object 1's words to object 2's
towards where object 1 goes. With L [image token] the mean logit of the one object's shape and
colour words less that of the other's, and T = d . (X, Y) the ramp along the relation,

    tilt = <L, T> / |T|      logits

mean over prompts: the `projection` of a QK map, of the true logits of a sampled image and of the
objects' words. Without the earlier heads it is taken in the same pass and on the same noisy images,
those of the whole model, so that the difference is what the later head has from them in this step,
by whatever path, and not from an image that came out otherwise.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from attnsearch import encoders
from attnsearch.ablation.hooks import MeanOutputs, Part, ablated, mean_outputs
from attnsearch.ablation.request import Ablation
from attnsearch.axes import RELATION_DIRECTIONS, ROLES, Branch, HeadAddress, Site
from attnsearch.encoders import EncodedText
from attnsearch.metrics.meaning import token_positions
from attnsearch.models import Attention, Checkpoint, DiT
from attnsearch.models.guidance import Conditioning
from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample
from attnsearch.task.captions import Caption, some_captions

Floats = npt.NDArray[np.float64]

_OBJECTS = (("shape1", "colour1"), ("shape2", "colour2"))


class Tilts(NamedTuple):
    """[step, layer, head], logits, in the conditional branch."""

    whole: Floats
    without: Floats
    """With the heads at their mean output."""


def measure_tilts(
    checkpoint: Checkpoint,
    heads: frozenset[HeadAddress],
    *,
    images: int,
    sampler: SamplerConfig,
    device: torch.device,
) -> Tilts:
    """The tilts of all heads with and without some of them; formula above.

    Samples one image of each of `some_captions`, so many of them.

    Raises:
        ConfigError: there is no such head.
    """
    model = checkpoint.build().to(device)
    chosen = some_captions(checkpoint.task, images)
    count = len(chosen)
    text = encoders.build(checkpoint.encoder).encode(chosen)
    noise = noise_of_seeds([0] * count, model).to(device)
    conditioning = Conditioning.from_text(text, device)
    means: MeanOutputs = {}
    with mean_outputs(model, means, {}):
        sample(model, checkpoint.objective, conditioning, noise, sampler)

    twice = Conditioning(*(torch.cat([each, each]) for each in conditioning))
    part = Part(Ablation(heads=heads), slice(count, 2 * count))
    watch = _Watch(model, _preference(text), _ramps(chosen, model.config.grid), sampler.steps)
    with watch.watching(), ablated(model, [part], means=means):
        sample(model, checkpoint.objective, twice, torch.cat([noise, noise]), sampler)
    return Tilts(*watch.tilts.cpu().numpy())


class _Watch:
    """Tilts of a batch of which the second half is the first again, with heads switched off."""

    def __init__(self, model: DiT, preference: Tensor, ramps: Tensor, steps: int) -> None:
        self._model = model
        device = model.position.device
        self._preference, self._ramps = preference.to(device), ramps.to(device)
        shape = (2, steps, model.config.depth, model.config.heads)
        self.tilts = torch.zeros(shape, dtype=torch.float64, device=device)
        self._step = -1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Listen to the model inside the block, which samples one batch."""
        with ExitStack() as restore:
            restore.callback(self._model.register_forward_pre_hook(self._begin).remove)
            for module in self._model.attention_modules(Site.CROSS):
                restore.callback(module.register_forward_pre_hook(self._listen).remove)
            yield

    def _begin(self, _: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Give the second half the noisy images of the first, in every branch."""
        self._step += 1
        image, *others = arguments
        halves = image.unflatten(0, (-1, 2, len(self._ramps)))
        return (halves[:, :1].expand_as(halves).flatten(0, 2), *others)

    def _listen(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(module, Attention)
        target, source, branches, *_ = arguments
        (rows,) = (rows for branch, rows in branches if branch is Branch.COND)
        query = module.query(target[rows]).unflatten(-1, (module.heads, -1))
        key = module.key(source[rows]).unflatten(-1, (module.heads, -1))
        halves = (2, len(self._ramps))
        key = torch.einsum("nt,snthc->snhc", self._preference, key.unflatten(0, halves))
        tilt = torch.einsum(
            "np,snphc,snhc->sh", self._ramps, query.unflatten(0, halves), key * module.scale
        )
        self.tilts[:, self._step, module.layer] = tilt.double() / len(self._ramps)


def _preference(text: EncodedText) -> Tensor:
    """Weights [prompt, token] of the mean word of object 1 less that of object 2."""
    weights = []
    for roles in _OBJECTS:
        words = text.roles[:, :, [ROLES.index(role) for role in roles]].sum(-1)
        weights.append(words / words.sum(1, keepdim=True))
    return weights[0] - weights[1]


def _ramps(captions: Sequence[Caption], grid: int) -> Tensor:
    """The ramp of every caption's relation, of length 1, [prompt, image token]."""
    directions = np.array([RELATION_DIRECTIONS[caption.relation] for caption in captions])
    ramps = directions @ token_positions((grid, grid)).T
    return torch.from_numpy(ramps / np.linalg.norm(ramps, axis=1, keepdims=True)).float()
