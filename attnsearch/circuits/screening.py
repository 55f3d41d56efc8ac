"""Relational heads found in the weights: no image is sampled and no map is stored.

For each relation m, with direction d_m from object 2 to object 1, the QK map Phi_m [image token]
of its words is compared with the ramp T_m = d_m . (X, Y), mean removed:

    projection = <Phi_m, T_m> / |T_m|      logits; how much, and on which side
    cosine     = projection / |Phi_m|      in [-1, 1]; the shape alone
    energy     = |Phi_m|                   logits; how much, wherever it points

each averaged over the eight relations (arXiv 2601.06338; see `qk` for the one difference of unit).
|.| is a length over image tokens: on a finer grid projection and energy grow with the square root
of the number of tokens. Positive: the head looks where object 1 is to be; negative: where object 2
is.

Two means are removed from Phi_m: over image tokens, as in the paper, and over relations, which is
ours. A spatial bias that all relation words share says nothing of the relation, as in the
`relational` metric. The projection is the same with or without it, because the ramps of opposite
relations cancel; cosines come out larger and energies smaller than the paper's. For the paper's
numbers give `align` the maps as `relation_maps` returns them.

Heads are ranked by the size of their projection, because a cosine does not know how faint a map
is and puts a late layer's ramps of a few logits above those of the heads that lead by sampling;
the projection does not (docs/results.md has both orders). The paper ranks by |cosine|, which is
printed beside.

The null is that of `relational`: direction words of random meaning. It carries over because the
projection is linear in the maps' dipoles: the dipole of a prompt's map is regressed on how much
of each direction word is in the prompt (a share, since the map is a mean over its words), every
word's coefficient is turned by an independent uniform angle, and the p-value is the share of
20,000 draws whose part of the projection is at least as large in size. A network with random
weights gives its words nearly independent dipoles in random directions, which is this null. There
is no interval: weights and prompts are given, and nothing is drawn that could have come out
otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from attnsearch import encoders
from attnsearch.axes import RELATION_DIRECTIONS, RELATIONS, ROLES, Branch, HeadAddress
from attnsearch.circuits.qk import Floats, relation_maps
from attnsearch.circuits.reader import CircuitModel
from attnsearch.encoders import EncodedText
from attnsearch.metrics.inference import DRAWS
from attnsearch.metrics.meaning import random_meaning_p, token_positions
from attnsearch.metrics.ranking import benjamini_hochberg
from attnsearch.models import Checkpoint, checkpoint_of
from attnsearch.models.families import find_denoiser
from attnsearch.models.pipelines import role_tokens
from attnsearch.prompts import prompt_of_caption
from attnsearch.task.captions import Caption, grid_captions
from attnsearch.task.spec import PRESETS


class Alignment(NamedTuple):
    """How maps lie to the ramps of their relations; arrays are [layer, head]."""

    cosine: Floats
    projection: Floats
    """Logits."""
    energy: Floats
    """Logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenedHead:
    """One row of a weights-only ranking."""

    rank: int
    """1 is the head whose projection is largest in size."""
    model: str
    layer: int
    head: int
    cosine: float
    projection: float
    """Logits."""
    energy: float
    """Logits."""
    p_value: float
    q_value: float
    """p-value adjusted for the number of heads (Benjamini-Hochberg)."""

    @property
    def address(self) -> HeadAddress:
        """The head within its model."""
        return HeadAddress(self.layer, self.head)


class Screening(NamedTuple):
    """A model, and the captions it is asked about as its own text encoder gives them."""

    model: CircuitModel
    text: EncodedText
    captions: Sequence[Caption]


def screening_of(model: Checkpoint | Path | str) -> Screening:
    """A checkpoint, its file or a packaged model by name, and its task's whole prompt grid.

    Raises:
        AttnsearchError: the model cannot be read, the weights do not fit, or the encoder cannot be
            built.
    """
    checkpoint = checkpoint_of(model)
    captions = grid_captions(checkpoint.task)
    text = encoders.build(checkpoint.encoder).encode(captions)
    return Screening(CircuitModel(checkpoint.build()), text, captions)


def screening_of_pipeline(pipe: Any) -> Screening:
    """A pipeline whose weights can be read (PixArt) and the prompt grid of the two-object task.

    Raises:
        ConfigError: it is another pipeline, or its tokenizer does not tell where tokens lie.
    """
    _, denoiser = find_denoiser(pipe)
    model = CircuitModel(denoiser)
    captions = grid_captions(PRESETS["small"])
    with torch.inference_mode():
        embedding, mask, *_ = pipe.encode_prompt(
            [caption.text for caption in captions],
            do_classifier_free_guidance=False,
            clean_caption=False,
        )
    prompts = [prompt_of_caption(caption) for caption in captions]
    roles = role_tokens(pipe, prompts, ROLES, [embedding.shape[1]])[Branch.COND]
    text = EncodedText(embedding.float().cpu(), mask.bool().cpu(), roles)
    return Screening(model, text, captions)


def screen(models: Mapping[str, Screening]) -> list[ScreenedHead]:
    """Every cross-attention head of every model, by size of its projection, best first."""
    rows: list[tuple[str, tuple[int, ...], Alignment, float]] = []
    for name, screening in models.items():
        scores, p_values = qk_relational(*screening)
        rows += [(name, at, scores, float(p_values[at])) for at in np.ndindex(p_values.shape)]
    q_values = benjamini_hochberg(np.array([p_value for *_, p_value in rows]))
    pairs = list(zip(rows, q_values, strict=True))
    pairs.sort(key=lambda pair: -abs(pair[0][2].projection[pair[0][1]]))
    return [
        ScreenedHead(
            rank=position,
            model=name,
            layer=at[0],
            head=at[1],
            cosine=float(scores.cosine[at]),
            projection=float(scores.projection[at]),
            energy=float(scores.energy[at]),
            p_value=p_value,
            q_value=float(q_value),
        )
        for position, ((name, at, scores, p_value), q_value) in enumerate(pairs, start=1)
    ]


def qk_relational(
    model: CircuitModel, text: EncodedText, captions: Sequence[Caption], seed: int = 0
) -> tuple[Alignment, Floats]:
    """Alignment of the relation-selective maps of every head, and its p-values [layer, head].

    Raises:
        MetricError: a relation is stated by no caption.
    """
    maps, dipoles = relation_maps(model, text, captions)
    selective = maps - maps.mean(axis=2, keepdims=True)
    words = sorted({word for caption in captions for word in caption.direction_words})
    counts = np.array([[c.direction_words.count(word) for word in words] for c in captions], float)
    p_values = random_meaning_p(
        dipoles,
        _targets(captions, model.grid),
        counts / counts.sum(axis=1, keepdims=True),
        DRAWS,
        np.random.default_rng(seed),
    )
    return align(selective, model.grid), p_values


def align(maps: Floats, grid: tuple[int, int]) -> Alignment:
    """Cosine, projection and energy against the ramps; formulas above.

    `maps` [layer, head, relation, image token]; a map that is the same everywhere has cosine 0.
    """
    return Alignment(*(each.mean(axis=-1) for each in align_each(maps, grid)))


def align_each(maps: Floats, grid: tuple[int, int]) -> Alignment:
    """As `align`, but [layer, head, relation]: not averaged over the relations."""
    ramps = _directions(RELATIONS) @ token_positions(grid).T
    centred = maps - maps.mean(axis=-1, keepdims=True)
    projection = np.einsum("lhrp,rp->lhr", centred, ramps) / np.linalg.norm(ramps, axis=1)
    energy = np.linalg.norm(centred, axis=-1)
    cosine = np.divide(projection, energy, out=np.zeros_like(energy), where=energy > 0)
    return Alignment(cosine, projection, energy)


def _targets(captions: Sequence[Caption], grid: tuple[int, int]) -> Floats:
    """What makes the mean over prompts of <dipole, target> the projection, [prompt, xy]."""
    relations = [caption.relation for caption in captions]
    direction = _directions(relations)
    length = np.linalg.norm(direction @ token_positions(grid).T, axis=1)
    # Each relation counts once, however many prompts state it.
    weight = [len(captions) / (len(RELATIONS) * relations.count(name)) for name in relations]
    return direction * (np.array(weight) / length)[:, None]


def _directions(relations: Sequence[str]) -> Floats:
    """Unit vectors [relation, xy]."""
    return np.array([RELATION_DIRECTIONS[name] for name in relations])
