"""How the text attention of a model is watched and read: one file per family.

`route` hands every attention call of image tokens to text tokens to a function of yours, on a live
model, with all arithmetic around it left to the model. Nothing here imports diffusers: families
know its classes by name.
"""

from attnsearch.models.families.contract import (
    BranchLayout,
    Family,
    ForwardInputs,
    ForwardPass,
    Layer,
    Places,
    Projections,
    StreamReading,
    TextRun,
    guidance_layout,
    one_branch,
)
from attnsearch.models.families.registry import (
    FAMILIES,
    family_of_index,
    find_denoiser,
    find_family,
)
from attnsearch.models.families.routing import route

__all__ = [
    "FAMILIES",
    "BranchLayout",
    "Family",
    "ForwardInputs",
    "ForwardPass",
    "Layer",
    "Places",
    "Projections",
    "StreamReading",
    "TextRun",
    "family_of_index",
    "find_denoiser",
    "find_family",
    "guidance_layout",
    "one_branch",
    "route",
]
