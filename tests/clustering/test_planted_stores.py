"""From maps to families: stores of several models whose heads are known."""

import numpy as np
import pytest

from attnsearch.clustering.planted import PRIVATE, planted_models
from benchmarks.planted_families import HEADS, false, families_of, recovered


@pytest.mark.parametrize(("heads", "stores"), [*zip(HEADS, (2, 1, 1), strict=True)])
def test_families_of_stores_are_recovered(heads: list[int], stores: int) -> None:
    found = recovered(heads, stores, steady=False)
    assert found["precision"] >= 0.95
    assert found["recall"] >= 0.95


def test_what_most_models_share_is_no_chance() -> None:
    families = families_of(planted_models(HEADS[0], shared=10, seed=0), seed=0)
    assert families[0].coverage == len(HEADS[0])
    assert families[0].p_value < 0.05


def test_where_nothing_is_shared_no_family_is_wide() -> None:
    assert false(stores=4, steady=False) == 0


def test_private_heads_are_of_one_model_and_shared_ones_of_several() -> None:
    models = planted_models([12, 16, 16], shared=6, seed=1)
    owners = np.repeat([0, 1, 2], [12, 16, 16])
    assert len(models.common) == len(owners)
    assert (models.common == PRIVATE).sum() == len(owners) - 3 * 6
    for number in range(6):
        assert len(set(owners[models.common == number])) == (models.common == number).sum() == 3
