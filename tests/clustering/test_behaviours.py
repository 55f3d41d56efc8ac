"""Behaviours that heads were drawn around come back, and their number too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.clustering import find_behaviours
from attnsearch.clustering.behaviours import adjusted_rand_index
from attnsearch.clustering.signatures import unit_rows
from attnsearch.errors import ConfigError


def heads_around(kinds: int, seed: int, each: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(kinds), each)
    centres = rng.standard_normal((kinds, 40))
    return unit_rows(centres[truth] + 0.4 * rng.standard_normal((len(truth), 40))), truth


@pytest.mark.parametrize("kinds", [3, 6])
def test_the_number_of_behaviours_is_found(kinds: int) -> None:
    vectors, truth = heads_around(kinds, seed=kinds)
    found = find_behaviours(vectors)
    assert len(np.unique(found.label)) == kinds
    assert adjusted_rand_index(found.label, truth) == pytest.approx(1)
    assert found.agreement.min() == 1


def test_the_same_seed_sorts_the_same_and_large_behaviours_come_first() -> None:
    vectors, _ = heads_around(4, seed=1)
    vectors = vectors[: 30 + 30 + 20 + 10]
    first, again = find_behaviours(vectors, 3), find_behaviours(vectors, 3)
    np.testing.assert_array_equal(first.label, again.label)
    sizes = np.bincount(first.label)
    assert (np.diff(sizes) <= 0).all()
    assert list(first.stability) == [3]


@pytest.mark.parametrize("number", [0, 31])
def test_a_number_that_heads_do_not_have_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"30 heads have no {number} behaviours"):
        find_behaviours(heads_around(1, seed=0)[0], number)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_the_index_is_symmetric_and_knows_no_names(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(each) for each in zip(*pairs, strict=True))
    assert adjusted_rand_index(one, one) == 1
    assert adjusted_rand_index(one, other) == pytest.approx(adjusted_rand_index(other, one))
    assert adjusted_rand_index(3 - one, other) == pytest.approx(adjusted_rand_index(one, other))


def test_unrelated_partitions_have_an_index_near_zero() -> None:
    rng = np.random.default_rng(0)
    found = [adjusted_rand_index(*rng.integers(4, size=(2, 400))) for _ in range(50)]
    assert abs(np.mean(found)) < 0.01
