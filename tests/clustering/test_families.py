"""Families that were planted are found, and where none were none are."""

from itertools import combinations

import numpy as np
import pytest
from budget import DEEP
from scipy.stats import binom

from attnsearch.clustering import find_families
from attnsearch.clustering.signatures import unit_rows
from attnsearch.errors import ConfigError

COLUMNS = 96


def planted(
    heads: list[int], shared: int, seed: int, drift: float = 0.5
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Signatures, models and kinds (private heads have -1) of models with some shared heads."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((shared, COLUMNS))
    vectors, models, truth = [], [], []
    for model, count in enumerate(heads):
        own = [*range(min(shared, round(0.6 * count)))]
        own += [-1] * (count - len(own))
        order = rng.permutation(own)
        for kind in order:
            base = rng.standard_normal(COLUMNS) if kind < 0 else kinds[kind]
            vectors.append(base + drift * rng.standard_normal(COLUMNS))
        models += [f"model{model}"] * count
        truth += [*order]
    return unit_rows(np.array(vectors)), models, np.array(truth)


def joined(members: list[tuple[int, ...]]) -> set[tuple[int, int]]:
    return {pair for family in members for pair in combinations(sorted(family), 2)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("heads", [[16, 16, 24, 36], [12] * 6, [16, 16, 20, 20, 36, 36] * 2])
def test_planted_families_are_recovered(heads: list[int], seed: int) -> None:
    vectors, models, truth = planted(heads, shared=8, seed=seed)
    families = find_families(vectors, models, draws=99)
    found = joined([family.members for family in families])
    wanted = joined(
        [tuple(np.flatnonzero(truth == kind)) for kind in range(8) if (truth == kind).sum() > 1]
    )
    assert len(found & wanted) >= 0.95 * len(found)
    assert len(found & wanted) >= 0.95 * len(wanted)
    assert families[0].p_value < 0.05
    assert families[0].exemplar in families[0].members


def test_what_two_models_share_does_not_depend_on_a_third() -> None:
    vectors, models, _ = planted([16, 16, 20], shared=8, seed=2)
    rng = np.random.default_rng(3)
    # All heads of the third are alike, as those of a model that learned nothing.
    dull = unit_rows(rng.standard_normal(COLUMNS) + 0.3 * rng.standard_normal((24, COLUMNS)))
    alone = find_families(vectors, models, draws=19)
    together = find_families(np.vstack([vectors, dull]), models + ["dull"] * 24, draws=19)
    assert {family.members for family in alone} == {family.members for family in together}


def test_where_nothing_is_shared_families_are_rare() -> None:
    trials = 120 if DEEP else 30
    false = 0
    for seed in range(trials):
        vectors, models, _ = planted([12, 16, 16, 20], shared=0, seed=seed)
        families = find_families(vectors, models, draws=99, seed=seed)
        false += any(family.p_value < 0.05 for family in families)
    # With a chance of 5 % each, more than this have one of 2 % at most.
    assert false <= binom.isf(0.02, trials, 0.05)


def test_the_order_of_heads_does_not_matter() -> None:
    vectors, models, _ = planted([12, 16, 16, 20], shared=6, seed=5)
    order = np.random.default_rng(0).permutation(len(vectors))
    first = find_families(vectors, models, draws=99)
    again = find_families(vectors[order], [models[i] for i in order], draws=99)
    assert {family.members for family in first} == {
        tuple(sorted(int(order[member]) for member in family.members)) for family in again
    }


def test_models_of_a_single_head_are_compared() -> None:
    same = np.ones((3, 4)) / 2
    (family,) = find_families(same, ["a", "b", "c"], draws=9)
    assert family.members == (0, 1, 2)


def test_one_model_has_no_families() -> None:
    vectors, models, _ = planted([12], shared=4, seed=0)
    with pytest.raises(ConfigError, match="at least two models"):
        find_families(vectors, models)
