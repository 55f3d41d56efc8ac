"""How far a backend may be from the float64 definition: one table, and how error is measured.

Tests, benchmarks and the README read this table; nothing loosens it by environment.
"""

from dataclasses import dataclass, fields
from math import sqrt
from typing import Final

import torch
from torch import Tensor

from attnsearch_kernels.contract import Backend, SketchedAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest absolute errors, each in the natural unit of its field."""

    output: float
    """In units of the largest magnitude in `value`, of which the output is a convex mixture."""
    sketch: float = 1e-5
    """In units of sqrt(N), the bound of a coefficient for an orthonormal basis."""
    entropy: float = 2e-5
    """In nats."""
    peak: float = 1e-5
    """Dimensionless."""
    energy: float = 1e-5
    """In units of N, its bound."""

    def __post_init__(self) -> None:
        for field in fields(self):
            bound = getattr(self, field.name)
            if not 0 < bound < 1:
                raise ValueError(f"tolerance {field.name} = {bound} is not between 0 and 1")


TOLERANCES: Final[dict[torch.dtype, Tolerance]] = {
    # Float32 scores of magnitude 30 are off by a few 1e-6, and so are the weights, relatively.
    torch.float32: Tolerance(output=1e-5),
    # Arithmetic is float32 all the same; only the inputs and the output are of the wider type.
    torch.float64: Tolerance(output=1e-5),
    # Statistics are float32 here too; the output is rounded once, to half a unit in the last
    # place: 2 ** -11 and 2 ** -8 relatively.
    torch.float16: Tolerance(output=6e-4),
    torch.bfloat16: Tolerance(output=5e-3),
}
"""By dtype of the query, against the definition on the same, already rounded, inputs."""

TENSOR_CORE_TOLERANCES: Final[dict[torch.dtype, Tolerance]] = {
    # Operands are rounded before each product: weights of the map to 11 bits for the roles and to
    # those of the value for the output, the mass of a role and the basis to 11 bits before they
    # meet. Each time by 2 ** -11 (2 ** -8 in bfloat16) of themselves at most, at worst all one way.
    torch.float16: Tolerance(output=1e-3, sketch=1.5e-3, energy=5e-4),
    torch.bfloat16: Tolerance(output=8e-3, sketch=1.5e-3, energy=5e-4),
}
"""The same for Triton, in whose products half precision stays half precision."""


def tolerance_of(dtype: torch.dtype, backend: Backend = Backend.TORCH) -> Tolerance:
    """What a backend may be off by for queries of a dtype."""
    if backend == Backend.TRITON and dtype in TENSOR_CORE_TOLERANCES:
        return TENSOR_CORE_TOLERANCES[dtype]
    return TOLERANCES[dtype]


def largest_errors(
    actual: SketchedAttention, exact: SketchedAttention, value: Tensor
) -> dict[str, float]:
    """Largest error of every field, in the units of `Tolerance`; `exact` is in float64."""
    tokens = exact.output.shape[2]
    largest_value = float(value.abs().max()) if value.numel() else 0.0
    units = {"output": largest_value or 1.0, "sketch": sqrt(tokens), "energy": float(tokens)}
    errors = {}
    for name, found in actual._asdict().items():
        difference = (found.double() - getattr(exact, name)).abs()
        largest = float(difference.max()) if difference.numel() else 0.0
        errors[name] = largest / units.get(name, 1.0)
    return errors


def violations(
    errors: dict[str, float], dtype: torch.dtype, backend: Backend = Backend.TORCH
) -> dict[str, float]:
    """The errors above what `tolerance_of` allows; NaN counts as one."""
    tolerance = tolerance_of(dtype, backend)
    return {name: error for name, error in errors.items() if not error <= getattr(tolerance, name)}
