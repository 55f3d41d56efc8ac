"""QK maps: where on the canvas a head would look for a word, read from its weights.

    Phi[p, word] = scale (W_Q pos(p) + b_Q) . (W_K CP(e_word) + b_K)

with pos the position code, CP the caption projection and scale = 1 / sqrt(channels per head): the
unit is that of the logits the softmax sees. arXiv 2601.06338, whose formula this is, leaves the
scale out; its numbers are larger by sqrt(channels per head), 8 in its models. Image content,
self-attention and earlier blocks are ignored, so this is what a head does before anything is
painted. Nothing is scored here.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnsearch.axes import RELATIONS, ROLES
from attnsearch.circuits.reader import CircuitModel
from attnsearch.encoders import EncodedText
from attnsearch.errors import MetricError
from attnsearch.metrics.meaning import token_positions
from attnsearch.task.captions import Caption

Floats = npt.NDArray[np.float64]


class RelationMaps(NamedTuple):
    """The QK maps of the relation words, in logits."""

    maps: Floats
    """[layer, head, relation, image token], in the order of `axes.RELATIONS`."""
    dipoles: Floats
    """sum_p Phi[p] (x_p, y_p) of every prompt's map, [prompt, layer, head, xy]."""


def qk_maps(model: CircuitModel, embedding: Tensor) -> Tensor:
    """The QK maps of some words, [layer, head, word, image token], in logits; formula above.

    `embedding` [word, channel] are token vectors as the text encoder gives them.
    """
    with torch.inference_mode():
        return torch.stack(list(_by_layer(model, model.project_caption(embedding))))


def relation_maps(
    model: CircuitModel, text: EncodedText, captions: Sequence[Caption]
) -> RelationMaps:
    """The map of each relation: the mean over the prompts that state it.

    The vector of a word depends on where it stands, and under a contextual encoder on its whole
    prompt, so `text` holds whole `captions`. The map of a prompt is the mean over its tokens with
    the role `relation`. Phi is linear in the keys, so this is also the map of the mean key.

    Raises:
        MetricError: a relation is stated by no caption.
    """
    stated = np.array([[c.relation == name for c in captions] for name in RELATIONS], dtype=float)
    counts = stated.sum(axis=1, keepdims=True)
    if not counts.all():
        missing = RELATIONS[int(counts.argmin())]
        raise MetricError(f"QK maps need prompts of every relation; none states {missing!r}")
    share = torch.from_numpy(stated / counts)
    ramps = torch.from_numpy(token_positions(model.grid))
    maps, dipoles = [], []
    with torch.inference_mode():
        # Layer by layer: the maps of all prompts at once would fill the memory at large grids.
        for phi in _by_layer(model, _relation_source(model, text)):
            exact = phi.double()
            maps.append(torch.einsum("rw,hwp->hrp", share, exact))
            dipoles.append(torch.einsum("hwp,px->whx", exact, ramps))
        return RelationMaps(torch.stack(maps).numpy(), torch.stack(dipoles, dim=1).numpy())


def _relation_source(model: CircuitModel, text: EncodedText) -> Tensor:
    """The mean projected relation token of each prompt, [prompt, width]."""
    weight = text.roles[:, :, ROLES.index("relation")]
    weight = weight / weight.sum(dim=1, keepdim=True)
    return torch.einsum("wt,wtc->wc", weight, model.project_caption(text.embedding))


def _by_layer(model: CircuitModel, source: Tensor) -> Iterator[Tensor]:
    """Phi [head, word, image token] of every layer, for projected words [word, width]."""
    for layer in model.layers:
        queries, keys = layer.queries(model.position), layer.keys(source)
        yield torch.einsum("hpc,hwc->hwp", queries, keys) * layer.scale
