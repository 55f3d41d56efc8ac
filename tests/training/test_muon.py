import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.training.muon import Muon, orthogonalise

SIDES = st.integers(1, 24)
SEEDS = st.integers(0, 2**32)


def random_orthogonal(rows, columns, generator):
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator))[0]


def factors(rows, columns, seed):
    """Singular vectors and values, the latter within a decade, of a full-rank matrix."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    values = 10 ** -torch.rand(rank, generator=generator)
    left = random_orthogonal(rows, rank, generator)
    return left, values, random_orthogonal(columns, rank, generator)


@given(SIDES, SIDES, SEEDS, st.sampled_from([1e-3, 1.0, 1e4]))
def test_singular_values_are_pushed_to_about_one(rows, columns, seed, magnitude):
    left, values, right = factors(rows, columns, seed)
    result = orthogonalise(magnitude * (left * values) @ right.T)
    found = torch.linalg.svdvals(result)
    assert result.shape == (rows, columns)
    assert found.min() > 0.6
    assert found.max() < 1.3


@given(SIDES, SIDES, SEEDS)
def test_singular_vectors_are_kept(rows, columns, seed):
    left, values, right = factors(rows, columns, seed)
    seen = left.T @ orthogonalise((left * values) @ right.T) @ right
    torch.testing.assert_close(seen, seen.diag().diag(), rtol=0, atol=1e-4)
    assert seen.diag().min() > 0


def test_a_zero_gradient_moves_nothing():
    assert not orthogonalise(torch.zeros(3, 5)).any()


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (12, 12)])
def test_updates_are_those_of_torch_up_to_its_half_precision(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimisers = (
        Muon([ours], lr=0.02, momentum=0.95),
        torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.0),
    )
    for _ in range(5):
        gradient = torch.randn(shape)
        for parameter, optimiser in zip((ours, theirs), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    moved, expected = ours.detach() - start, theirs.detach() - start
    assert (moved - expected).norm() < 0.02 * expected.norm()


def test_matrices_without_a_gradient_stay():
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    Muon([parameter], lr=1.0).step()
    assert torch.equal(parameter, torch.ones(3, 3))
