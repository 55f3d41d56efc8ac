"""What can be read off every map of a scan, before anything is reduced.

A functional f of the image tokens has the coefficients Phi^T f, and its value on the attention to
some roles is one dot product with the sketch. Of a scan that lies in a store nothing is read
until values are computed, and then only the branch and the roles that are asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from attnsearch.axes import BASIS, BRANCH, REGION, ROLE, Branch
from attnsearch.errors import MetricError
from attnsearch.store.schema import REGION_COEFFICIENTS

FUNCTIONAL: Final = "functional"
"""Dimension along which several functionals of one map lie."""
MEASURE: Final = "measure"
"""Dimension of `TOTAL` and `SHARE`."""
TOTAL: Final = "total"
SHARE: Final = "share"

Floats = NDArray[np.float32]

_SLAB_NUMBERS: Final = 2**18
"""Worked on at once, so that what is made of them stays in the processor's cache."""


class Quantity(Protocol):
    """Some numbers for every map, or every sample."""

    def inputs(self, scan: xr.Dataset) -> dict[str, xr.DataArray]:
        """The parts of a scan's arrays it is made of, by the names of the arrays.

        Raises:
            MetricError: the scan has no such array, branch, role or region.
        """

    def of(self, scan: xr.Dataset) -> xr.DataArray:
        """Its values, (sample, ...), as lazy as the scan is; raises as `inputs` does."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Functional:
    """Linear functionals of the attention to some roles: (sample, step, layer, head, functional).

    Sum over image tokens of f A Gamma[:, roles], float32.
    """

    coefficients: Floats
    """[basis, functional] Phi^T f for each functional f over image tokens."""
    roles: tuple[str, ...]
    branch: Branch = Branch.COND

    def inputs(self, scan: xr.Dataset) -> dict[str, xr.DataArray]:
        """See `Quantity`."""
        return {"sketch": _sketch(scan, self.roles, self.branch)}

    def of(self, scan: xr.Dataset) -> xr.DataArray:
        """See `Quantity`."""
        attention = _attention(scan, self.roles, self.branch)
        work = partial(_functionals, coefficients=self.coefficients)
        return _mapped(work, FUNCTIONAL, self.coefficients.shape[1], attention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """The coefficients of the attention to some roles: (sample, step, layer, head, basis)."""

    roles: tuple[str, ...]
    branch: Branch = Branch.COND

    def inputs(self, scan: xr.Dataset) -> dict[str, xr.DataArray]:
        """See `Quantity`."""
        return {"sketch": _sketch(scan, self.roles, self.branch)}

    def of(self, scan: xr.Dataset) -> xr.DataArray:
        """See `Quantity`."""
        return _attention(scan, self.roles, self.branch)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionScore:
    """How much a region looks at some roles: (sample, step, layer, head, measure), float32.

    `TOTAL` is m^T A w, attention summed over the region in image tokens, with m the region of each
    sample's own image and w the indicator of the roles; `SHARE` is m^T A w / m^T 1, in [0, 1].
    NaN where the objects were not found in the image.
    """

    region: str
    roles: tuple[str, ...]
    branch: Branch = Branch.COND

    def inputs(self, scan: xr.Dataset) -> dict[str, xr.DataArray]:
        """See `Quantity`."""
        if REGION not in scan.coords:
            raise MetricError("the scan has no regions: nothing looked for objects in its images")
        number = _places(scan, REGION, (self.region,))[0]
        return {
            "sketch": _sketch(scan, self.roles, self.branch),
            REGION_COEFFICIENTS: scan[REGION_COEFFICIENTS].isel({REGION: number}, drop=True),
        }

    def of(self, scan: xr.Dataset) -> xr.DataArray:
        """See `Quantity`."""
        weights = self.inputs(scan)[REGION_COEFFICIENTS]
        # Only the constant function of the basis has a sum: 1 / sqrt(tokens) everywhere.
        work = partial(_region_scores, tokens=float(np.prod(scan.attrs["grid"])))
        values = _mapped(work, MEASURE, 2, _attention(scan, self.roles, self.branch), weights)
        return values.assign_coords({MEASURE: [TOTAL, SHARE]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An array of the scan as it is, of one branch if it has branches."""

    name: str
    branch: Branch = Branch.COND

    def inputs(self, scan: xr.Dataset) -> dict[str, xr.DataArray]:
        """See `Quantity`."""
        return {self.name: self.of(scan)}

    def of(self, scan: xr.Dataset) -> xr.DataArray:
        """See `Quantity`."""
        if self.name not in scan.data_vars:
            known = ", ".join(str(name) for name in scan.data_vars)
            raise MetricError(f"the scan has no {self.name}; it has {known}")
        values = scan[self.name]
        if BRANCH not in values.dims:
            return values
        return values.isel({BRANCH: _places(scan, BRANCH, (str(self.branch),))[0]}, drop=True)


def _sketch(scan: xr.Dataset, roles: Sequence[str], branch: Branch) -> xr.DataArray:
    """The sketches of a run of roles that holds the asked ones; of one role without that axis."""
    places = _places(scan, ROLE, roles)
    run = places[0] if len(places) == 1 else slice(min(places), max(places) + 1)
    number = _places(scan, BRANCH, (str(branch),))[0]
    # One index with nothing but numbers and slices: Dask hands no other on to what reads.
    return scan["sketch"].isel({BRANCH: number, ROLE: run}, drop=True)


def _attention(scan: xr.Dataset, roles: Sequence[str], branch: Branch) -> xr.DataArray:
    """The attention to some roles together, (sample, step, layer, head, basis)."""
    sketch = _sketch(scan, roles, branch)
    if ROLE not in sketch.dims:
        return sketch
    places = _places(scan, ROLE, roles)
    total: xr.DataArray = xr.apply_ufunc(
        partial(_summed, chosen=[place - min(places) for place in places]),
        sketch,
        input_core_dims=[[ROLE, BASIS]],
        output_core_dims=[[BASIS]],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    return total.assign_coords({BASIS: sketch[BASIS]}) if BASIS in sketch.coords else total


def _mapped(
    work: Callable[..., Floats],
    dimension: str,
    size: int,
    attention: xr.DataArray,
    *per_sample: xr.DataArray,
) -> xr.DataArray:
    """What some work makes of attention, piece by piece: another last axis in place of the basis.

    `xarray.apply_ufunc` would do, but copies every piece.
    """
    arrays = [
        each.data[(slice(None), *[None] * (attention.ndim - each.ndim))]
        for each in (attention, *per_sample)
    ]
    data = (
        da.map_blocks(work, *arrays, dtype=np.float32, chunks=(*arrays[0].chunks[:-1], size))
        if isinstance(arrays[0], da.Array)
        else work(*arrays)
    )
    kept = {
        name: coordinate
        for name, coordinate in attention.coords.items()
        if BASIS not in coordinate.dims
    }
    return xr.DataArray(data, kept, (*attention.dims[:-1], dimension))


def _places(scan: xr.Dataset, dimension: str, names: Sequence[str]) -> list[int]:
    known = [str(name) for name in scan[dimension].to_numpy()]
    for name in names:
        if name not in known:
            raise MetricError(f"unknown {dimension} {name!r}; the scan has {', '.join(known)}")
    return [known.index(name) for name in names]


def _summed(sketch: NDArray[Any], *, chosen: Sequence[int]) -> Floats:
    """Attention to the chosen roles together, [..., basis], of sketches [..., role, basis]."""
    total: Floats = sketch[..., chosen[0], :].astype(np.float32)
    for place in chosen[1:]:
        total += sketch[..., place, :]
    return total


def _functionals(attention: NDArray[Any], *, coefficients: Floats) -> Floats:
    values = np.empty((*attention.shape[:-1], coefficients.shape[1]), np.float32)
    for rows in _slabs(attention):
        part = attention[rows].astype(np.float32, copy=False)
        np.matmul(part, coefficients, out=values[rows])
    return values


def _region_scores(attention: NDArray[Any], weights: NDArray[Any], *, tokens: float) -> Floats:
    values = np.empty((*attention.shape[:-1], 2), np.float32)
    # Weights [sample, basis] come with axes for what they do not depend on, all of length 1.
    weights = weights.reshape(len(weights), -1)
    mass = weights[:, 0] * np.sqrt(np.float32(tokens))
    for rows in _slabs(attention):
        part = attention[rows].astype(np.float32, copy=False)
        flat = part.reshape(len(part), -1, part.shape[-1])
        total = np.matmul(flat, weights[rows, :, None]).reshape(part.shape[:-1])
        values[rows, ..., 0] = total
        values[rows, ..., 1] = total / mass[rows].reshape(-1, *[1] * (total.ndim - 1))
    return values


def _slabs(attention: NDArray[Any]) -> list[slice]:
    """Rows of samples that are worked on together."""
    samples = max(1, _SLAB_NUMBERS * len(attention) // max(1, attention.size))
    return [slice(begin, begin + samples) for begin in range(0, len(attention), samples)]
