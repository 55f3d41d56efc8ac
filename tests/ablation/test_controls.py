"""Sets that heads are held against are of others, all different, and as large."""

from hypothesis import given
from hypothesis import strategies as st

from attnsearch.ablation import layer_sets, random_sets
from attnsearch.axes import HeadAddress

EVERY = [HeadAddress(layer, head) for layer in range(3) for head in range(4)]
groups = st.frozensets(st.sampled_from(EVERY), min_size=1, max_size=5)


@given(groups, st.integers(0, 60))
def test_sets_are_of_others_and_as_large(heads: frozenset[HeadAddress], count: int) -> None:
    for sets in (random_sets(EVERY, heads, count), layer_sets(EVERY, heads, count)):
        assert len(set(sets)) == len(sets) <= count
        assert all(len(each) == len(heads) and not each & heads for each in sets)
        assert all(each <= frozenset(EVERY) for each in sets)


@given(groups, st.integers(1, 60))
def test_layers_are_matched(heads: frozenset[HeadAddress], count: int) -> None:
    layers = sorted(head.layer for head in heads)
    for each in layer_sets(EVERY, heads, count):
        assert sorted(head.layer for head in each) == layers


def test_all_are_found_if_so_many_are_asked_for() -> None:
    assert len(random_sets(EVERY, frozenset(EVERY[:2]), 1000)) == 45
    assert len(layer_sets(EVERY, frozenset(EVERY[:2]), 1000)) == 1
    assert layer_sets(EVERY, frozenset(EVERY[:3]), 5) == []
