"""Order, adjustment and refusal of rankings."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from attnsearch.axes import RELATION_DIRECTIONS, ROLES
from attnsearch.errors import MetricError
from attnsearch.metrics import rank
from attnsearch.metrics.meaning import token_positions
from attnsearch.metrics.ranking import benjamini_hochberg

Build = Callable[..., xr.Dataset]


def _heads(*strengths: float) -> Callable[..., np.ndarray]:
    positions = token_positions((8, 8))

    def maps(caption, _):
        along = positions @ np.array(RELATION_DIRECTIONS[caption.relation])
        role_maps = np.zeros((len(strengths), len(ROLES), len(positions)))
        for head, strength in enumerate(strengths):
            role_maps[head, ROLES.index("relation")] = 0.5 + 0.5 * strength * along
        return role_maps

    return maps


def test_heads_come_by_size_of_score_across_models(scan_of: Build) -> None:
    ranking = rank({"a": scan_of(_heads(0.1, -0.6)), "b": scan_of(_heads(0.9, 0.3))}, "relational")
    assert [(row.model, str(row.address)) for row in ranking] == [
        ("b", "L0H0"), ("a", "L0H1"), ("b", "L0H1"), ("a", "L0H0"),
    ]  # fmt: skip
    assert [row.rank for row in ranking] == [1, 2, 3, 4]
    assert ranking[1].score < 0


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MetricError, match=r"metric 'relatoinal'; known: .* at character 1"):
        rank({}, "relatoinal")


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=40))
def test_adjusted_values_keep_the_order_and_are_never_smaller(p_values: list[float]) -> None:
    p = np.array(p_values)
    q = benjamini_hochberg(p)
    assert (q >= p - 1e-12).all()
    assert (q <= 1).all()
    assert (np.diff(q[np.argsort(p, kind="stable")]) >= -1e-12).all()
    assert np.array_equal(q, false_discovery_control(p))
