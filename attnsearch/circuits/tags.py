"""Tags: what a head writes for a relation, and which later heads read it. From weights alone.

With CP the caption projection, W_OV = W_O W_V of a head and tokens of the role `relation` against
all others of a prompt (padding aside),

    tag_m = W_OV (mean CP(relation tokens) - mean CP(other tokens))        over prompts that state m

is what image tokens where the head attends to the relation words have more than those where it
does not. A later head whose queries read the stream answers a tag t by preferring one object's
words to the other's by

    response = scale (W_Q t) . W_K (mean CP(words of object 1) - mean CP(words of object 2))  logits

(arXiv 2601.06338 looks at the same products map by map). Only the direct path along the residual
stream is followed: self-attention, MLPs and heads in between are not.

The null of a response is a tag of the same length in a uniformly random direction: its cosine with
the direction that is read has a square distributed as Beta(1/2, (width - 1) / 2). It asks whether
this head is tuned to this tag more than to anything else the stream may carry; a stream has fewer
directions in use than channels, so p-values are lenient.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnsearch.axes import RELATIONS, ROLES, HeadAddress
from attnsearch.circuits.qk import Floats
from attnsearch.circuits.reader import CircuitModel
from attnsearch.circuits.screening import Screening
from attnsearch.task.spec import COLOURS, OBJECT_PAIRS, SHAPES

_OBJECT_WORDS = (("shape1", "shape2"), ("colour1", "colour2"))


class Tags(NamedTuple):
    """What every head writes for a relation; arrays are by layer and head first."""

    by_relation: Tensor
    """[layer, head, relation, width], in the order of `axes.RELATIONS`."""
    mean: Tensor
    """[layer, head, width], over relations: what tags have in common."""
    agreement: Floats
    """[layer, head], mean cosine of the relations' tags with their mean; 1: all have the same."""


class Directions(NamedTuple):
    """What heads read of a stream to tell object 1's words from object 2's."""

    read: Tensor
    """[layer, head, kind, width], of shapes and of colours: a stream's product with it is how many
    logits object 1's word leads by."""
    untagged: Floats
    """[layer, head], logits by which it leads at bare positions, over both kinds and all places."""


class Readings(NamedTuple):
    """How heads answer one tag; arrays are [layer, head], zero where a layer is not later."""

    shape: Floats
    """Logits by which words of object 1's shape gain over those of object 2's, with the tag."""
    colour: Floats
    """The same of colours."""
    untagged: Floats
    """Logits by which they lead without the tag, over both and over all positions."""
    p_value: Floats
    """Of the mean of `shape` and `colour`, two-sided; 1 where a layer is not later."""

    @property
    def response(self) -> Floats:
        """Logits, mean of both."""
        return (self.shape + self.colour) / 2


def relation_tags(screening: Screening) -> Tags:
    """The tags of every head; formula above."""
    model = screening.model
    with torch.inference_mode():
        source = _relation_sources(screening)
        tags = torch.stack([_linear(layer.writes, source) for layer in model.layers])
        mean = tags.mean(dim=2)
        cosine = torch.cosine_similarity(tags, mean.unsqueeze(2), dim=-1).mean(dim=-1)
    return Tags(tags, mean, cosine.double().numpy())


def read_directions(screening: Screening) -> Directions:
    """What every head reads, whatever the tag."""
    model = screening.model
    with torch.inference_mode():
        differences = _object_sources(screening)
        eye = torch.eye(model.position.shape[1], dtype=model.position.dtype)
        read, untagged = [], []
        for layer in model.layers:
            keys = _linear(layer.keys, differences) * layer.scale
            read.append(torch.einsum("hwc,hoc->how", _linear(layer.queries, eye), keys))
            logits = torch.einsum("hpc,hc->hp", layer.queries(model.position), keys.mean(dim=1))
            untagged.append(logits.mean(dim=1))
    return Directions(torch.stack(read), torch.stack(untagged).double().numpy())


def readings(directions: Directions, tag: Tensor, after: int) -> Readings:
    """How the heads of layers after `after` answer a tag [width]; formula above."""
    from scipy.stats import beta  # slow to import

    answers = torch.einsum("lhow,w->lho", directions.read, tag)
    length = directions.read.mean(dim=2).norm(dim=-1) * tag.norm()
    cosine = answers.mean(dim=-1) / length.clamp(min=torch.finfo(length.dtype).tiny)
    square = cosine.double().square().clamp(max=1).numpy()
    later = (np.arange(len(answers)) > after)[:, None]
    shape, colour = (np.where(later, each.double().numpy(), 0.0) for each in answers.unbind(-1))
    return Readings(
        shape=shape,
        colour=colour,
        untagged=np.where(later, directions.untagged, 0.0),
        p_value=np.where(later, beta.sf(square, 0.5, (len(tag) - 1) / 2), 1.0),
    )


def identities_written(screening: Screening) -> tuple[Floats, Floats]:
    """How far apart a head writes different shapes, and different colours; [layer, head] each.

    The root mean square distance, in units of the residual stream, of what it writes for a shape
    word from the mean over shapes, places of the word in the caption being averaged over first.
    """
    found = []
    with torch.inference_mode():
        projected = screening.model.project_caption(screening.text.embedding)
        for kind, values in enumerate((SHAPES, COLOURS)):
            source = torch.stack(
                [_mean_word(screening, projected, kind, value) for value in values]
            )
            written = torch.stack(
                [_linear(layer.writes, source) for layer in screening.model.layers]
            )
            apart = written - written.mean(dim=2, keepdim=True)
            found.append(apart.square().sum(-1).mean(-1).sqrt().double().numpy())
    return found[0], found[1]


def q_composition(model: CircuitModel, heads: frozenset[HeadAddress]) -> Floats:
    """|W_QK^T W_OV| / (|W_QK| |W_OV|) of some heads with every later one, [layer, head].

    Frobenius norms, W_OV of the earlier heads (stacked, if several) and W_QK of the later one, as
    in Elhage et al. 2021 ("A Mathematical Framework for Transformer Circuits"), where it is called
    Q-composition. There is no other in cross-attention: keys and values are made of text, which no
    head changes. Zero where a layer is not later than all heads.
    """
    last = max(head.layer for head in heads)
    with torch.inference_mode():
        eye = torch.eye(model.position.shape[1], dtype=model.position.dtype)
        writes = [_linear(layer.writes, eye) for layer in model.layers]
        written = torch.cat([writes[head.layer][head.head] for head in sorted(heads)])
        rows = []
        for number, later in enumerate(model.layers):
            query, key = _linear(later.queries, eye), _linear(later.keys, eye)
            read = torch.einsum("io,hoc->hic", written, query)
            gram = torch.einsum("hic,hid->hcd", key, key)
            joint = torch.einsum("hic,hcd,hid->h", read, gram, read)
            own = torch.einsum("hic,hcd,hid->h", query, gram, query)
            score = (joint / own.clamp(min=torch.finfo(own.dtype).tiny)).sqrt() / written.norm()
            rows.append(score if number > last else torch.zeros_like(score))
        return torch.stack(rows).double().numpy()


def _linear(affine: Callable[[Tensor], Tensor], vectors: Tensor) -> Tensor:
    """What an affine map makes of vectors [row, width], less its constant; [head, row, ...]."""
    whole = affine(torch.cat([vectors, torch.zeros_like(vectors[:1])]))
    return whole[:, :-1] - whole[:, -1:]


def _relation_sources(screening: Screening) -> Tensor:
    """Relation words less the other words, projected; [relation, width]."""
    projected = screening.model.project_caption(screening.text.embedding)
    roles = screening.text.roles
    words = roles[:, :, ROLES.index("relation")]
    others = (1 - words) * (1 - roles[:, :, ROLES.index("pad")])
    weight = words / words.sum(1, keepdim=True) - others / others.sum(1, keepdim=True)
    by_prompt = torch.einsum("pt,ptw->pw", weight.to(projected.dtype), projected)
    relation = np.array([caption.relation for caption in screening.captions])
    return torch.stack(
        [by_prompt[torch.from_numpy(relation == name)].mean(0) for name in RELATIONS]
    )


def _object_sources(screening: Screening) -> Tensor:
    """Words of object 1 less those of object 2, projected, of shapes and of colours; [2, width]."""
    projected = screening.model.project_caption(screening.text.embedding)
    found = []
    for first, second in _OBJECT_WORDS:
        pair = []
        for name in (first, second):
            words = screening.text.roles[:, :, ROLES.index(name)]
            weight = words / words.sum(1, keepdim=True).clamp(min=1)
            pair.append(torch.einsum("pt,ptw->w", weight.to(projected.dtype), projected))
        found.append((pair[0] - pair[1]) / len(projected))
    return torch.stack(found)


def _mean_word(screening: Screening, projected: Tensor, kind: int, value: str) -> Tensor:
    """The mean projected word that names a shape (kind 0) or colour (kind 1), over both objects."""
    means = []
    for place, role in enumerate(_OBJECT_WORDS[kind]):
        named = torch.tensor(
            [OBJECT_PAIRS[c.pair][place][1 - kind] == value for c in screening.captions]
        )
        words = screening.text.roles[named][:, :, ROLES.index(role)]
        weight = words / words.sum()
        means.append(torch.einsum("pt,ptw->w", weight.to(projected.dtype), projected[named]))
    return torch.stack(means).mean(0)
