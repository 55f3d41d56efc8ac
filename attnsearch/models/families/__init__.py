"""How the text attention of a diffusers transformer is watched: one file per family.

`route` hands every attention call of image tokens to text tokens to a function of yours, on a live
transformer, with all arithmetic around it left to diffusers. Nothing here imports diffusers:
families know their classes by name.
"""

from attnsearch.models.families.contract import (
    BranchLayout,
    Family,
    ForwardPass,
    Layer,
    TextPlace,
    TextRun,
    guidance_layout,
)
from attnsearch.models.families.registry import FAMILIES, family_named, find_family
from attnsearch.models.families.routing import route

__all__ = [
    "FAMILIES",
    "BranchLayout",
    "Family",
    "ForwardPass",
    "Layer",
    "TextPlace",
    "TextRun",
    "family_named",
    "find_family",
    "guidance_layout",
    "route",
]
