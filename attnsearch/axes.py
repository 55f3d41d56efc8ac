"""The words of the project: axis names, the values they take, and how a head is addressed.

Everything that names a dimension (tensors in docstrings, Zarr `dimension_names`, xarray
dimensions, table columns) takes its name from here. This module imports nothing of ours.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import Final, Self

SAMPLE: Final = "sample"
STEP: Final = "step"
BRANCH: Final = "branch"
LAYER: Final = "layer"
HEAD: Final = "head"
ROLE: Final = "role"
BASIS: Final = "basis"
REGION: Final = "region"
PROMPT: Final = "prompt"

SKETCH_AXES: Final = (SAMPLE, STEP, BRANCH, LAYER, HEAD, ROLE, BASIS)
"""Dimensions of a stored sketch, in storage order."""


class Branch(StrEnum):
    """Which half of classifier-free guidance a map belongs to."""

    COND = "cond"
    UNCOND = "uncond"


class Site(StrEnum):
    """Where an attention call reads its keys from."""

    CROSS = "cross"
    SELF = "self"
    JOINT = "joint"


ROLES: Final = ("colour1", "shape1", "relation", "colour2", "shape2", "filler", "end", "pad")
"""Token roles of the two-object task. They partition the text tokens."""

REGIONS: Final = ("object1", "object2", "background")
"""Regions of a two-object image; the three weightings sum to one at every image token."""

_DIAGONAL = 1 / sqrt(2)
RELATION_DIRECTIONS: Final[dict[str, tuple[float, float]]] = {
    "above": (0.0, -1.0),
    "below": (0.0, 1.0),
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "upper_left": (-_DIAGONAL, -_DIAGONAL),
    "upper_right": (_DIAGONAL, -_DIAGONAL),
    "lower_left": (-_DIAGONAL, _DIAGONAL),
    "lower_right": (_DIAGONAL, _DIAGONAL),
}
"""Unit vector (x right, y down) from object 2 to object 1, by relation."""

RELATIONS: Final = tuple(RELATION_DIRECTIONS)


@dataclass(frozen=True, slots=True, order=True)
class HeadAddress:
    """One attention head of a model, printed and parsed as `L2H8`."""

    layer: int
    """Zero-based depth of the block."""
    head: int
    """Zero-based index within the layer."""

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address written as `L<layer>H<head>`.

        Raises:
            ValueError: the text is not of that form.
        """
        match = re.fullmatch(r"[Ll](\d+)[Hh](\d+)", text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a head address; write it as L2H8 (layer 2, head 8)")
        return cls(int(match[1]), int(match[2]))
