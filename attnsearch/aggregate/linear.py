"""Linear functionals of maps, read off their sketches.

A functional f of the image tokens has the coefficients Phi^T f, and its value on the attention
to some roles is one dot product with the sketch. Reductions go through Dask one storage block at
a time, in bounded memory; what comes back is in memory.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.axes import BASIS, BRANCH, REGION, ROLE, SAMPLE, Branch

FUNCTIONAL = "functional"
"""Dimension along which several functionals of one map lie."""


def project(
    scan: xr.Dataset,
    coefficients: npt.NDArray[np.float32],
    roles: Sequence[str],
    branch: Branch = Branch.COND,
) -> xr.DataArray:
    """Values of linear functionals on the attention to some roles, for every map of a branch.

    `coefficients` [basis, functional] are Phi^T f for each functional f over image tokens;
    returns (sample, step, layer, head, functional) float32: sum over image tokens of
    f A Gamma[:, roles].
    """
    attention = _attention(scan, roles, branch)
    functional = xr.DataArray(coefficients, dims=(BASIS, FUNCTIONAL))
    return xr.dot(attention, functional, dim=BASIS).compute()


def basis_of(scan: xr.Dataset) -> npt.NDArray[np.float64]:
    """The transposed basis Phi^T [basis, image token] that a scan's coefficients refer to.

    Orthonormal 2-D DCT-II of frequencies (`ky`, `kx`) on the scan's grid, tokens row-major.
    """
    height, width = scan.attrs["grid"]
    vertical = _cosines(height)[scan["ky"].to_numpy()]
    horizontal = _cosines(width)[scan["kx"].to_numpy()]
    return (vertical[:, :, None] * horizontal[:, None, :]).reshape(len(vertical), -1)


def kept_energy(scan: xr.Dataset, branch: Branch = Branch.COND) -> xr.DataArray:
    """Share of the attention to every role that the basis keeps, (role,), in [0, 1].

    |Phi^T a|^2 / |a|^2 with a the attention of all image tokens to the role, both summed over the
    maps of a branch: 1 minus the squared relative error of reconstructing the maps. With as many
    frequencies as image tokens it is 1, up to the rounding of what is stored. NaN where a role is
    never attended.
    """
    sketch = scan["sketch"].sel({BRANCH: str(branch)}).astype(np.float32)
    kept = (sketch**2).sum([name for name in sketch.dims if name != ROLE])
    energy = scan["energy"].sel({BRANCH: str(branch)}).astype(np.float64)
    whole = energy.sum([name for name in energy.dims if name != ROLE])
    share = (kept / whole.where(whole > 0)).compute()
    return share.drop_vars(BRANCH)


def region_scores(
    scan: xr.Dataset, region: str, roles: Sequence[str], branch: Branch = Branch.COND
) -> tuple[xr.DataArray, xr.DataArray]:
    """The template score m^T A w of every map, and the region's mass m^T 1 in image tokens.

    m is the region of each sample's own image, w the indicator of the roles. Returns
    (sample, step, layer, head) and (sample,); both NaN where the objects were not found.
    """
    weights = scan["region_coefficients"].sel({REGION: region})
    scores = xr.dot(_attention(scan, roles, branch), weights, dim=BASIS)
    # Only the constant function of the basis has a sum; it is 1 / sqrt(tokens) everywhere.
    tokens = float(np.prod(scan.attrs["grid"]))
    mass = weights.isel({BASIS: 0}, drop=True) * np.sqrt(tokens)
    return scores.drop_vars(REGION).compute(), mass.drop_vars(REGION).compute()


def by_prompt(values: xr.DataArray) -> xr.DataArray:
    """Mean over the samples of each prompt, prompts in order of first appearance.

    The sample dimension becomes `prompt`, and keeps the coordinates of samples but their seeds.
    Samples that are NaN are left out; a prompt with none but such is NaN.
    """
    prompts = values["prompt"].to_numpy().astype(object)
    names, first, index = np.unique(prompts, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    flat = values.transpose(SAMPLE, ...)
    data = flat.to_numpy().astype(np.float64)
    known = np.isfinite(data)
    total = np.zeros((len(names), *data.shape[1:]))
    count = np.zeros_like(total)
    np.add.at(total, rank[index], np.where(known, data, 0.0))
    np.add.at(count, rank[index], known)
    with np.errstate(invalid="ignore"):
        mean = total / count
    dims = ("prompt", *flat.dims[1:])
    coordinates = {
        str(name): ("prompt", column.to_numpy()[first[order]])
        for name, column in values.coords.items()
        if column.dims == (SAMPLE,) and name not in (SAMPLE, "prompt", "seed")
    }
    kept = {name: flat.coords[name] for name in flat.dims[1:] if name in flat.coords}
    return xr.DataArray(mean, dims=dims, coords={"prompt": names[order], **coordinates, **kept})


def _cosines(count: int) -> npt.NDArray[np.float64]:
    """The orthonormal DCT-II [frequency, position] of one axis."""
    k, i = np.arange(count)[:, None], np.arange(count)[None, :]
    scale = np.where(k == 0, 1.0, 2.0) / count
    return np.sqrt(scale) * np.cos(np.pi * k * (2 * i + 1) / (2 * count))


def _attention(scan: xr.Dataset, roles: Sequence[str], branch: Branch) -> xr.DataArray:
    sketch = scan["sketch"].sel({BRANCH: str(branch), ROLE: list(roles)})
    return sketch.astype(np.float32).sum(ROLE).drop_vars(BRANCH)
