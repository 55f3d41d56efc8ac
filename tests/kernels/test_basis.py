"""The cosine basis and its inverse."""

import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from attnsearch_kernels import dct2, inverse_dct2

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)).map(
    lambda sizes: (sizes[0], sizes[1], min(sizes))
)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@examples(9, deep=100)
@given(GRIDS)
def test_columns_are_orthonormal_on_every_grid(grid: tuple[int, int, int]) -> None:
    height, width, order = grid
    basis = dct2(height, width, order, dtype=torch.float64)
    assert basis.shape == (height * width, order**2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(order**2, dtype=torch.float64))


def test_rows_are_row_major_and_columns_run_over_kx_first() -> None:
    height, width, order = 3, 5, 3
    basis = dct2(height, width, order, dtype=torch.float64).reshape(height, width, order, order)
    # ky = 0 is constant along y, kx = 0 along x, and one half period has opposite ends.
    torch.testing.assert_close(basis[:, :, 0], basis[:1, :, 0].expand(height, -1, -1))
    torch.testing.assert_close(basis[:, :, :, 0], basis[:, :1, :, 0].expand(-1, width, -1))
    assert basis[0, 0, 1, 0] > 0 > basis[2, 0, 1, 0]
    assert basis[0, 0, 0, 1] > 0 > basis[0, 4, 0, 1]


def test_first_coefficient_is_the_sum_over_root_n() -> None:
    image = _random(20)
    coefficients = image @ dct2(4, 5, 2, dtype=torch.float64)
    torch.testing.assert_close(coefficients[0], image.sum() / 20**0.5)


def test_full_order_reconstructs_exactly() -> None:
    image = _random(2, 3, 36)
    coefficients = image @ dct2(6, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(inverse_dct2(coefficients, 6, 6), image)


@pytest.mark.parametrize(("height", "width", "order"), [(6, 6, 3), (4, 7, 2), (5, 3, 3)])
def test_lower_order_is_the_orthogonal_projection(height: int, width: int, order: int) -> None:
    basis = dct2(height, width, order, dtype=torch.float64)
    image = _random(4, height * width)
    projected = inverse_dct2(image @ basis, height, width)
    residual = image - projected
    torch.testing.assert_close(residual @ basis, torch.zeros(4, order**2, dtype=torch.float64))
    torch.testing.assert_close(inverse_dct2(projected @ basis, height, width), projected)
    assert residual.norm() > 0.1


def test_basis_is_computed_in_float64_and_rounded_once() -> None:
    exact = dct2(32, 32, 8, dtype=torch.float64)
    assert torch.equal(dct2(32, 32, 8), exact.float())
    assert dct2(4, 4, 2).dtype == torch.float32


@pytest.mark.parametrize("order", [0, -1, 5])
def test_an_order_that_does_not_fit_the_grid_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match=f"order {order} does not fit a grid of 4 x 9"):
        dct2(4, 9, order)


def test_a_number_of_coefficients_that_is_no_square_is_refused() -> None:
    with pytest.raises(ValueError, match="8 coefficients"):
        inverse_dct2(torch.ones(8), 6, 6)
    with pytest.raises(ValueError, match="order 7"):
        inverse_dct2(torch.ones(49), 6, 6)
