"""The spatial basis: orthonormal 2-D cosines sampled on the token grid, and the way back.

Only the basis lives here; contracting it with a map is the operator's work.
"""

from math import isqrt, pi, sqrt

import torch
from torch import Tensor


def dct2(
    height: int,
    width: int,
    order: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The `order` x `order` lowest frequencies of the orthonormal 2-D DCT-II, `[N, F]`.

    Row `y * width + x` is a token, column `ky * order + kx` a frequency, and the columns are
    orthonormal: `dct2(...).T @ dct2(...) = I`. Entry = `c(ky, height) cos(pi (2y + 1) ky /
    (2 height)) * c(kx, width) cos(pi (2x + 1) kx / (2 width))` with `c(0, n) = sqrt(1 / n)` and
    `c(k, n) = sqrt(2 / n)`. Computed in float64, then rounded to `dtype`.

    Raises:
        ValueError: `order` is not between 1 and the shorter side of the grid.
    """
    if not 1 <= order <= min(height, width):
        raise ValueError(
            f"order {order} does not fit a grid of {height} x {width} tokens; "
            f"choose 1 to {min(height, width)}"
        )
    basis = torch.kron(_cosines(height, order), _cosines(width, order))
    return basis.to(device=device, dtype=dtype)


def inverse_dct2(coefficients: Tensor, height: int, width: int) -> Tensor:
    """The low-pass image `[..., N]` with these coefficients `[..., F]`, on the token grid.

    Equals `coefficients @ dct2(height, width, sqrt(F)).T`: exact when F = N, else the orthogonal
    projection of the original onto the F lowest frequencies. Same dtype as the coefficients.

    Raises:
        ValueError: F is not a square number, or its root does not fit the grid.
    """
    columns = coefficients.shape[-1]
    order = isqrt(columns)
    if order**2 != columns:
        raise ValueError(
            f"{columns} coefficients are not a square of frequencies; expected order ** 2"
        )
    basis = dct2(height, width, order, dtype=coefficients.dtype, device=coefficients.device)
    return coefficients @ basis.T


def _cosines(size: int, order: int) -> Tensor:
    """Orthonormal 1-D DCT-II, `[size, order]`, float64."""
    position = torch.arange(size, dtype=torch.float64)[:, None]
    frequency = torch.arange(order, dtype=torch.float64)
    cosines = torch.cos(pi * (2 * position + 1) * frequency / (2 * size)) * sqrt(2 / size)
    cosines[:, 0] = sqrt(1 / size)
    return cosines
