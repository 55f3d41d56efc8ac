"""What can be read off every map of a scan, before anything is reduced.

A functional f of the image tokens has the coefficients Phi^T f, and its value on the attention to
some roles is one dot product with the sketch. Of a scan that lies in a store nothing is read
until values are computed, and then only the branch and the roles that are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

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
        return {"sketch": _attention(scan, self.roles, self.branch)[0]}

    def of(self, scan: xr.Dataset) -> xr.DataArray:
        """See `Quantity`."""
        sketch, chosen = _attention(scan, self.roles, self.branch)
        values: xr.DataArray = xr.apply_ufunc(
            partial(_functionals, chosen=chosen, coefficients=self.coefficients),
            sketch,
            input_core_dims=[[ROLE, BASIS]],
            output_core_dims=[[FUNCTIONAL]],
            dask="parallelized",
            output_dtypes=[np.float32],
            dask_gufunc_kwargs={"output_sizes": {FUNCTIONAL: self.coefficients.shape[1]}},
        )
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """The coefficients of the attention to some roles: (sample, step, layer, head, basis)."""

    roles: tuple[str, ...]
    branch: Branch = Branch.COND

    def inputs(self, scan: xr.Dataset) -> dict[str, xr.DataArray]:
        """See `Quantity`."""
        return {"sketch": _attention(scan, self.roles, self.branch)[0]}

    def of(self, scan: xr.Dataset) -> xr.DataArray:
        """See `Quantity`."""
        sketch, chosen = _attention(scan, self.roles, self.branch)
        values: xr.DataArray = xr.apply_ufunc(
            partial(_summed, chosen=chosen),
            sketch,
            input_core_dims=[[ROLE, BASIS]],
            output_core_dims=[[BASIS]],
            dask="parallelized",
            output_dtypes=[sketch.dtype if len(chosen) == 1 else np.float32],
        )
        return values.assign_coords({BASIS: scan[BASIS]}) if BASIS in scan.coords else values


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
            "sketch": _attention(scan, self.roles, self.branch)[0],
            REGION_COEFFICIENTS: scan[REGION_COEFFICIENTS].isel({REGION: number}, drop=True),
        }

    def of(self, scan: xr.Dataset) -> xr.DataArray:
        """See `Quantity`."""
        _, chosen = _attention(scan, self.roles, self.branch)
        values: xr.DataArray = xr.apply_ufunc(
            # Only the constant function of the basis has a sum: 1 / sqrt(tokens) everywhere.
            partial(_region_scores, chosen=chosen, tokens=float(np.prod(scan.attrs["grid"]))),
            *self.inputs(scan).values(),
            input_core_dims=[[ROLE, BASIS], [BASIS]],
            output_core_dims=[[MEASURE]],
            dask="parallelized",
            output_dtypes=[np.float32],
            dask_gufunc_kwargs={"output_sizes": {MEASURE: 2}},
        )
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


def _attention(
    scan: xr.Dataset, roles: Sequence[str], branch: Branch
) -> tuple[xr.DataArray, tuple[int, ...]]:
    """The sketches of a run of roles that holds the asked ones, and where those are in it."""
    places = _places(scan, ROLE, roles)
    begin, end = min(places), max(places) + 1
    number = _places(scan, BRANCH, (str(branch),))[0]
    # One index with nothing but numbers and slices: Dask hands no other on to what reads.
    sketch = scan["sketch"].isel({BRANCH: number, ROLE: slice(begin, end)}, drop=True)
    return sketch, tuple(place - begin for place in places)


def _places(scan: xr.Dataset, dimension: str, names: Sequence[str]) -> list[int]:
    known = [str(name) for name in scan[dimension].to_numpy()]
    for name in names:
        if name not in known:
            raise MetricError(f"unknown {dimension} {name!r}; the scan has {', '.join(known)}")
    return [known.index(name) for name in names]


def _summed(sketch: NDArray[Any], *, chosen: Sequence[int]) -> NDArray[Any]:
    """Attention to the chosen roles together, [..., basis], of sketches [..., role, basis]."""
    if len(chosen) == 1:
        return sketch[..., chosen[0], :]
    total = sketch[..., chosen[0], :].astype(np.float32)
    for place in chosen[1:]:
        total += sketch[..., place, :]
    return total


def _functionals(
    sketch: NDArray[Any], *, chosen: Sequence[int], coefficients: Floats
) -> NDArray[Any]:
    values = np.empty((*sketch.shape[:-2], coefficients.shape[1]), np.float32)
    for rows in _slabs(sketch):
        attention = _summed(sketch[rows], chosen=chosen).astype(np.float32, copy=False)
        np.matmul(attention, coefficients, out=values[rows])
    return values


def _region_scores(
    sketch: NDArray[Any], weights: Floats, *, chosen: Sequence[int], tokens: float
) -> NDArray[Any]:
    values = np.empty((*sketch.shape[:-2], 2), np.float32)
    # Weights [sample, basis] come with axes for what they do not depend on, all of length 1.
    weights = weights.reshape(len(weights), -1)
    mass = weights[:, 0] * np.sqrt(np.float32(tokens))
    for rows in _slabs(sketch):
        attention = _summed(sketch[rows], chosen=chosen).astype(np.float32, copy=False)
        flat = attention.reshape(len(attention), -1, attention.shape[-1])
        total = np.matmul(flat, weights[rows, :, None]).reshape(attention.shape[:-1])
        values[rows, ..., 0] = total
        values[rows, ..., 1] = total / mass[rows].reshape(-1, *[1] * (total.ndim - 1))
    return values


def _slabs(sketch: NDArray[Any]) -> list[slice]:
    """Rows of samples that are worked on together."""
    samples = max(1, _SLAB_NUMBERS * len(sketch) // max(1, sketch.size))
    return [slice(begin, begin + samples) for begin in range(0, len(sketch), samples)]
