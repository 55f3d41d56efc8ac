"""The basis that sketches of maps are coefficients in."""

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.axes import BRANCH, ROLE, Branch


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


def _cosines(count: int) -> npt.NDArray[np.float64]:
    """The orthonormal DCT-II [frequency, position] of one axis."""
    k, i = np.arange(count)[:, None], np.arange(count)[None, :]
    scale = np.where(k == 0, 1.0, 2.0) / count
    return np.sqrt(scale) * np.cos(np.pi * k * (2 * i + 1) / (2 * count))
