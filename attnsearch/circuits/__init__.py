"""Circuits read from weights alone; knows nothing of sampling, scans or stores."""

from attnsearch.circuits.contract import QueryKeyLayer, QueryKeyModel
from attnsearch.circuits.dit import DiTCircuit
from attnsearch.circuits.qk import RelationMaps, qk_maps, relation_maps
from attnsearch.circuits.screening import (
    Alignment,
    ScreenedHead,
    align,
    qk_relational,
    screen,
)

__all__ = [
    "Alignment",
    "DiTCircuit",
    "QueryKeyLayer",
    "QueryKeyModel",
    "RelationMaps",
    "ScreenedHead",
    "align",
    "qk_maps",
    "qk_relational",
    "relation_maps",
    "screen",
]
