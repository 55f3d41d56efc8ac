"""The coordinates of a scan that its sizes do not determine: names, types, meanings."""

from dataclasses import dataclass
from typing import Final

from attnsearch.axes import SAMPLE, STEP


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinateSpec:
    """One coordinate that the caller of the writer gives, of a known type and meaning."""

    name: str
    dimension: str
    dtype: str
    """`int64`, `float32`, `bool` or `string`."""
    long_name: str
    optional: bool = False
    """Left out where prompts do not say it."""


COORDINATES: Final = (
    CoordinateSpec(
        name="prompt", dimension=SAMPLE, dtype="string", long_name="caption that was sampled"
    ),
    CoordinateSpec(
        name="relation",
        dimension=SAMPLE,
        dtype="string",
        long_name="direction from object 2 to object 1 that the caption asks for",
        optional=True,
    ),
    CoordinateSpec(
        name="relation_words",
        dimension=SAMPLE,
        dtype="string",
        long_name="words of the caption that say the relation, separated by spaces",
        optional=True,
    ),
    CoordinateSpec(
        name="colour1",
        dimension=SAMPLE,
        dtype="string",
        long_name="colour asked for object 1",
        optional=True,
    ),
    CoordinateSpec(
        name="shape1",
        dimension=SAMPLE,
        dtype="string",
        long_name="shape asked for object 1",
        optional=True,
    ),
    CoordinateSpec(
        name="colour2",
        dimension=SAMPLE,
        dtype="string",
        long_name="colour asked for object 2",
        optional=True,
    ),
    CoordinateSpec(
        name="shape2",
        dimension=SAMPLE,
        dtype="string",
        long_name="shape asked for object 2",
        optional=True,
    ),
    CoordinateSpec(
        name="held_out",
        dimension=SAMPLE,
        dtype="bool",
        long_name="combination of shape, colour and relation was kept out of training",
        optional=True,
    ),
    CoordinateSpec(
        name="seed", dimension=SAMPLE, dtype="int64", long_name="seed of the initial noise"
    ),
    CoordinateSpec(
        name="timestep",
        dimension=STEP,
        dtype="float32",
        long_name="time the network is conditioned on",
    ),
    CoordinateSpec(
        name="noise_level",
        dimension=STEP,
        dtype="float32",
        long_name="noise level, comparable between samplers",
    ),
)
"""Prompts may bring more, of text."""
