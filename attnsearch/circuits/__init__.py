"""Circuits read from weights, and how far they are to be trusted; knows nothing of stores."""

from attnsearch.circuits.chain import Circuit, Link, ReadingHead, WritingHead, circuit_of
from attnsearch.circuits.explained import position_share
from attnsearch.circuits.qk import RelationMaps, qk_maps, relation_maps
from attnsearch.circuits.reader import CircuitLayer, CircuitModel
from attnsearch.circuits.screening import (
    Alignment,
    ScreenedHead,
    Screening,
    align,
    align_each,
    qk_relational,
    screen,
    screening_of,
    screening_of_pipeline,
)
from attnsearch.circuits.tags import (
    Directions,
    Readings,
    Tags,
    q_composition,
    read_directions,
    readings,
    relation_tags,
)

__all__ = [
    "Alignment",
    "Circuit",
    "CircuitLayer",
    "CircuitModel",
    "Directions",
    "Link",
    "ReadingHead",
    "Readings",
    "RelationMaps",
    "ScreenedHead",
    "Screening",
    "Tags",
    "WritingHead",
    "align",
    "align_each",
    "circuit_of",
    "position_share",
    "q_composition",
    "qk_maps",
    "qk_relational",
    "read_directions",
    "readings",
    "relation_maps",
    "relation_tags",
    "screen",
    "screening_of",
    "screening_of_pipeline",
]
