"""Heads are called after what was planted in them, and found by that name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.axes import ROLES
from attnsearch.clustering import signatures
from attnsearch.clustering.profiles import TRAITS, Trait, best_name, profiles, sizes
from attnsearch.clustering.signatures import LEVELS
from attnsearch.errors import MetricError
from attnsearch.metrics.planted import Kind, Plant, planted_scan

TO_SHAPE = tuple(2.0 * (role == "shape1") for role in ROLES)
TO_RELATION = tuple(1.5 * (role == "relation") for role in ROLES)
PLANTS = (
    Plant(kind=Kind.RELATIONAL, strength=2.0, base=TO_RELATION),
    Plant(kind=Kind.RELATIONAL, strength=-2.0, base=TO_RELATION),
    Plant(base=TO_SHAPE),
    *(Plant() for _ in range(9)),
)
NAMES = ["relational", "relational, reversed", "shape1"]


def test_planted_heads_get_their_names() -> None:
    found = profiles(signatures({"a": planted_scan(PLANTS, 0, noise=0.1)})).to_numpy()
    assert [str(best_name(profile)) for profile in found[:3]] == NAMES
    assert not any(str(best_name(profile)).startswith("relational") for profile in found[3:])


@pytest.mark.parametrize("head", range(3))
def test_a_head_is_found_by_its_name(head: int) -> None:
    vectors = sizes(profiles(signatures({"a": planted_scan(PLANTS, 0, noise=0.1)})))
    assert (vectors @ Trait.parse(NAMES[head]).vector).argmax() == head


def test_a_trait_that_comes_late_is_said_to() -> None:
    profile = np.zeros((len(TRAITS), len(LEVELS)))
    profile[0] = -0.2 * (np.array(LEVELS) < 0.4)
    assert str(best_name(profile)) == "relational, reversed, from noise 0.3 to 0.1"
    assert best_name(profile / 100) is None


@given(
    st.builds(
        lambda name, against, ends: Trait(
            name=name, reversed=against, begin=max(ends), end=min(ends)
        ),
        st.sampled_from(TRAITS),
        st.booleans(),
        st.tuples(st.sampled_from(LEVELS), st.sampled_from(LEVELS)),
    )
)
def test_what_is_written_can_be_read(trait: Trait) -> None:
    assert Trait.parse(str(trait)) == trait


def test_words_for_times_are_levels() -> None:
    assert str(Trait.parse("relational, late")) == "relational, from noise 0.3 to 0.1"
    assert Trait.parse("middle, object").levels.sum() == 1


@pytest.mark.parametrize("text", ["", "late", "red", "relational, soon", "relational, object"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(MetricError):
        Trait.parse(text)


def test_noise_between_levels_is_refused() -> None:
    with pytest.raises(MetricError, match="holds none of the noise levels"):
        Trait.parse("relational, from noise 0.45 to 0.35")
