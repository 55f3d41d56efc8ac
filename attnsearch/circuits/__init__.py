"""Circuits read from weights alone; knows nothing of sampling, scans or stores."""

from attnsearch.circuits.contract import QueryKeyLayer, QueryKeyModel
from attnsearch.circuits.dit import DiTCircuit
from attnsearch.circuits.pixart import PixArtCircuit
from attnsearch.circuits.qk import RelationMaps, qk_maps, relation_maps
from attnsearch.circuits.screening import (
    Alignment,
    ScreenedHead,
    Screening,
    align,
    qk_relational,
    screen,
    screening_of,
    screening_of_pipeline,
)

__all__ = [
    "Alignment",
    "DiTCircuit",
    "PixArtCircuit",
    "QueryKeyLayer",
    "QueryKeyModel",
    "RelationMaps",
    "ScreenedHead",
    "Screening",
    "align",
    "qk_maps",
    "qk_relational",
    "relation_maps",
    "screen",
    "screening_of",
    "screening_of_pipeline",
]
