"""From the relational head to the object head: which head reads what another one writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from torch import Tensor

from attnsearch.axes import RELATIONS, HeadAddress
from attnsearch.circuits.qk import relation_maps
from attnsearch.circuits.screening import Screening, align_each, qk_relational
from attnsearch.circuits.tags import (
    Directions,
    Tags,
    identities_written,
    q_composition,
    read_directions,
    readings,
    relation_tags,
)
from attnsearch.errors import ConfigError
from attnsearch.metrics.ranking import benjamini_hochberg

_SIGNIFICANT: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingHead:
    """A head as one that looks where a relation points, and writes a tag there."""

    address: HeadAddress
    cosine: float
    """Of its QK maps with the ramps of their relations, mean; see `screening`."""
    projection: float
    """Logits along the ramp; positive: it looks where object 1 is to go."""
    q_value: float
    """Of the projection, adjusted for the number of heads."""
    cosines: dict[str, float]
    """By relation."""
    tag_length: float
    """Units of the residual stream."""
    tag_agreement: float
    """Mean cosine of the relations' tags with their mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingHead:
    """A later head as one that answers a tag, and writes an object."""

    address: HeadAddress
    shape: float
    """Logits by which object 1's shape gains over object 2's where the tag is."""
    colour: float
    """The same of colours."""
    untagged: float
    """Logits by which object 1's words lead without the tag, mean over positions."""
    q_value: float
    """Of the mean response, adjusted for the number of later heads."""
    composition: float
    """Q-composition with the heads that wrote the tag, in [0, 1]."""
    shape_written: float
    """How far apart it writes different shapes, units of the residual stream."""
    colour_written: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A writing head and a head that reads its tag."""

    writer: HeadAddress
    reader: HeadAddress
    projection: float
    """Logits of the writer along the ramp."""
    response: float
    """Logits by which object 1's words gain where the tag is, mean of shape and colour."""

    @property
    def strength(self) -> float:
        """Their product, in squared logits.

        Positive: together they put object 1 on the side asked for, whichever end the writer marks;
        negative: on the other.
        """
        return self.projection * self.response


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """What the weights say of how a model places objects."""

    writers: list[WritingHead]
    """All heads, by size of projection, largest first."""
    heads: frozenset[HeadAddress]
    """Those whose tags are read."""
    readers: list[ReadingHead]
    """Heads later than all of these, by size of response."""
    links: list[Link]
    """Of all pairs of heads, strongest first, by size."""


def circuit_of(screening: Screening, heads: frozenset[HeadAddress] = frozenset()) -> Circuit:
    """Read the circuit of a model, for the tags of some of its heads.

    Several tags are read as one: their sum, each with the sign of its head's projection, so that a
    head that marks object 2 counts as one that marks object 1 at the other end. By default they are
    of the head with the largest projection and of those of its layer that are significant (q <
    0.05) and have at least half of it: such heads can stand in for each other.

    Raises:
        ConfigError: there is no such head.
        MetricError: a relation is stated by no caption.
    """
    tags = relation_tags(screening)
    writers = _writers(screening, tags)
    known = {writer.address: writer for writer in writers}
    for head in sorted(heads):
        if head not in known:
            raise ConfigError(f"there is no head {head}: the last one is {max(known)}")
    chosen = heads or _leading(writers)
    signs = {head: float(np.sign(known[head].projection)) for head in chosen}
    together = sum(sign * tags.mean[head.layer, head.head] for head, sign in signs.items())
    assert isinstance(together, Tensor)  # of at least one head
    directions = read_directions(screening)
    links = []
    for writer in writers:
        layer, number = writer.address.layer, writer.address.head
        response = readings(directions, tags.mean[layer, number], layer).response
        links += [
            Link(
                writer=writer.address,
                reader=HeadAddress(*at),
                projection=writer.projection,
                response=float(response[at]),
            )
            for at in np.ndindex(response.shape)
            if at[0] > layer
        ]
    links.sort(key=lambda link: -abs(link.strength))
    readers = _readers(screening, directions, chosen, together)
    return Circuit(writers=writers, heads=chosen, readers=readers, links=links)


def _leading(writers: Sequence[WritingHead]) -> frozenset[HeadAddress]:
    first = writers[0]
    return frozenset({first.address}) | {
        writer.address
        for writer in writers
        if writer.address.layer == first.address.layer
        and writer.q_value < _SIGNIFICANT
        and abs(writer.projection) >= abs(first.projection) / 2
    }


def _writers(screening: Screening, tags: Tags) -> list[WritingHead]:
    scores, p_values = qk_relational(*screening)
    maps, _ = relation_maps(*screening)
    selective = maps - maps.mean(axis=2, keepdims=True)
    cosines = align_each(selective, screening.model.grid).cosine
    lengths = tags.mean.norm(dim=-1)
    q_values = benjamini_hochberg(p_values.ravel()).reshape(p_values.shape)
    found = [
        WritingHead(
            address=HeadAddress(*at),
            cosine=float(scores.cosine[at]),
            projection=float(scores.projection[at]),
            q_value=float(q_values[at]),
            cosines=dict(zip(RELATIONS, cosines[at].tolist(), strict=True)),
            tag_length=float(lengths[at]),
            tag_agreement=float(tags.agreement[at]),
        )
        for at in np.ndindex(p_values.shape)
    ]
    return sorted(found, key=lambda writer: -abs(writer.projection))


def _readers(
    screening: Screening, directions: Directions, heads: frozenset[HeadAddress], tag: Tensor
) -> list[ReadingHead]:
    last = max(head.layer for head in heads)
    answers = readings(directions, tag, last)
    later = [at for at in np.ndindex(answers.shape.shape) if at[0] > last]
    if not later:
        return []
    q_values = benjamini_hochberg(np.array([answers.p_value[at] for at in later]))
    composition = q_composition(screening.model, heads)
    shapes, colours = identities_written(screening)
    found = [
        ReadingHead(
            address=HeadAddress(*at),
            shape=float(answers.shape[at]),
            colour=float(answers.colour[at]),
            untagged=float(answers.untagged[at]),
            q_value=float(q_value),
            composition=float(composition[at]),
            shape_written=float(shapes[at]),
            colour_written=float(colours[at]),
        )
        for at, q_value in zip(later, q_values, strict=True)
    ]
    return sorted(found, key=lambda reader: -abs(reader.shape + reader.colour))
