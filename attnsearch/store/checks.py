"""What must be true of the numbers of a block, whatever model they are of.

Let A be a map of N image tokens and M keys with rows that sum to one, Gamma a partition of the
text tokens into roles, Phi an orthonormal basis whose first column is constant. Then the sketches
of a cross-attention map add up, over roles, to Phi^T 1 (conservation of mass); the first
coefficient of a role is its mass over sqrt(N); entropies lie in [0, log M], peaks in [1 / M, 1];
and what the basis keeps of a role is no more than all of it (Bessel's inequality).
"""

from collections.abc import Iterator, Mapping
from math import log, prod, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attnsearch.axes import Site
from attnsearch.store.schema import FLAGGED, REGION_COEFFICIENTS, ScanLayout

_ROUNDED: Final = 2**-9
"""Of the size of a sketch, what rounding may change of one role: to half precision when stored,
and of the operands on a GPU (the kernels allow for 1.5e-3)."""
_SLACK: Final = 1e-3
"""Of entropies in nats and of peaks, both sums of float32."""


def wrong_numbers(
    layout: ScanLayout, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> list[str]:
    """What is wrong with the arrays of a block, one line each; empty if nothing is.

    `attributes` are those of the scan. What they do not tell (`grid`, `keys`, `attention`) is not
    checked.
    """
    flagged = arrays[FLAGGED]
    floats = {name: values for name, values in arrays.items() if values.dtype.kind == "f"}
    broken = [
        f"{name} of a flagged sample is not NaN"
        for name, values in floats.items()
        if not np.isnan(values[flagged]).all()
    ]
    broken += [
        f"{name} is not finite"
        for name, values in floats.items()
        if name != REGION_COEFFICIENTS and not np.isfinite(values[~flagged]).all()
    ]
    if broken:
        return broken
    rest = {name: values[~flagged].astype(np.float32) for name, values in floats.items()}
    return [f"{what}: {float(worst):.3g}" for what, worst in _violations(layout, attributes, rest)]


def _violations(
    layout: ScanLayout, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]]
) -> Iterator[tuple[str, float]]:
    sketch, energy = arrays["sketch"], arrays["energy"]
    if not len(sketch):  # every sample is flagged
        return
    if keys := _count(attributes.get("keys")):
        for name, least, most in (("entropy", 0.0, log(keys)), ("peak", 1 / keys, 1.0)):
            low, high = float(arrays[name].min()), float(arrays[name].max())
            if low < least - _SLACK:
                yield f"{name} below {least:.3g}", low
            if high > most + _SLACK:
                yield f"{name} above {most:.3g}", high
    grid = attributes.get("grid")
    tokens = prod(map(_count, grid)) if isinstance(grid, list) and len(grid) == 2 else 0
    if not tokens:
        return
    scaled = sketch / np.float32(sqrt(tokens))
    excess = np.square(scaled).sum(axis=-1) - energy / tokens
    if (worst := float(excess.max())) > 2 * _ROUNDED:
        yield "a sketch keeps more than the energy of its map, per image token", worst
    allowed = _ROUNDED * len(layout.roles)
    masses = scaled[..., 0]
    if (worst := float(masses.min())) < -allowed:
        yield "attention to a role is negative", worst
    total = scaled.sum(axis=-2)
    if attributes.get("attention") == Site.CROSS:
        total[..., 0] -= 1
        if (worst := float(np.abs(total).max())) > allowed:
            yield "attention to all roles does not add up to one; off by", worst
    elif (worst := float(total[..., 0].max())) > 1 + allowed:
        yield "attention to all roles is more than one", worst


def _count(value: object) -> int:
    """A positive whole number; 0 for anything else."""
    return value if type(value) is int and value > 0 else 0
