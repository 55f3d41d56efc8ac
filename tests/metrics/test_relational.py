"""What the relational metric answers to, and what it does not."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from scipy.stats import kstest

from attnsearch.aggregation import Aggregator
from attnsearch.axes import RELATION_DIRECTIONS, ROLES
from attnsearch.errors import MetricError
from attnsearch.metrics import HeadScores, head_scores, parse
from attnsearch.metrics.meaning import token_positions
from attnsearch.task.captions import Caption

Build = Callable[..., xr.Dataset]
POSITIONS = token_positions((8, 8))
RELATION = ROLES.index("relation")


def relational(scan: xr.Dataset) -> HeadScores:
    return head_scores("made", scan, parse("relational"), Aggregator())


def _on_relation(attention: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A Gamma [role, token] with this attention to relation words, the rest to filler."""
    role_map = np.zeros((len(ROLES), len(attention)))
    role_map[RELATION] = attention
    role_map[ROLES.index("filler")] = 1 - attention
    return role_map


def _side(direction: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Attention 1 on the side of the canvas a direction points to, 0 on the other."""
    along = POSITIONS @ np.array(direction)
    return np.where(np.isclose(along, 0), 0.5, along > 0)


def test_a_head_that_fills_the_asked_side_scores_one_and_its_mirror_minus_one(
    scan_of: Build,
) -> None:
    def maps(caption: Caption, _: int) -> npt.NDArray[np.float64]:
        side = _side(RELATION_DIRECTIONS[caption.relation])
        return np.stack([_on_relation(side), _on_relation(1 - side)])

    scores = relational(scan_of(maps))
    np.testing.assert_allclose(scores.score, [1, -1], atol=1e-5)
    assert (scores.p_value < 0.001).all()


def test_the_score_is_linear_in_the_strength_of_the_map(scan_of: Build) -> None:
    def maps(caption: Caption, _: int) -> npt.NDArray[np.float64]:
        side = _side(RELATION_DIRECTIONS[caption.relation])
        return np.stack([_on_relation(0.8 * side), _on_relation(0.2 * side)])

    np.testing.assert_allclose(relational(scan_of(maps)).score, [0.8, 0.2], atol=1e-5)


def test_a_fixed_spatial_bias_a_uniform_head_and_a_shape_head_score_nothing(
    scan_of: Build,
) -> None:
    bias = _side((1.0, 0.0))

    def maps(caption: Caption, _: int) -> npt.NDArray[np.float64]:
        shape = np.zeros((len(ROLES), len(POSITIONS)))
        shape[ROLES.index(f"shape{1 + (caption.pair % 2)}")] = 1.0
        uniform = _on_relation(np.full(len(POSITIONS), 0.3))
        return np.stack([_on_relation(bias), uniform, shape])

    scores = relational(scan_of(maps))
    np.testing.assert_allclose(scores.score, 0, atol=1e-6)
    assert (scores.p_value > 0.05).all()


def test_a_head_that_answers_every_word_differently_but_not_in_space_is_not_significant(
    scan_of: Build,
) -> None:
    rng = np.random.default_rng(0)
    words = ("above", "below", "left", "right", "upper", "lower")
    heads = 200
    logits = {word: rng.normal(size=(heads, len(POSITIONS))) for word in words}

    def maps(caption: Caption, _: int) -> npt.NDArray[np.float64]:
        total = sum(logits[word] for word in caption.direction_words)
        return np.stack([_on_relation(a) for a in 1 / (1 + np.exp(-total))])

    p_value = relational(scan_of(maps)).p_value
    # One-sided: the p-values may be larger than uniform ones, never smaller.
    assert kstest(p_value, "uniform", alternative="greater").pvalue > 0.01
    assert (p_value < 0.05).mean() < 0.1


def test_the_interval_holds_the_score_and_narrows_with_less_noise(scan_of: Build) -> None:
    rng = np.random.default_rng(1)

    def maps(caption: Caption, _: int) -> npt.NDArray[np.float64]:
        side = _side(RELATION_DIRECTIONS[caption.relation])
        noise = rng.uniform(size=(2, len(POSITIONS)))
        return np.stack(
            [_on_relation(0.5 * side + 0.05 * noise[0]), _on_relation(0.5 * side + 0.5 * noise[1])]
        )

    scores = relational(scan_of(maps))
    assert (scores.ci_low <= scores.score).all()
    assert (scores.score <= scores.ci_high).all()
    width = scores.ci_high - scores.ci_low
    assert width[0] < width[1]


def test_low_frequencies_are_enough_for_the_ramp(scan_of: Build) -> None:
    def maps(caption: Caption, _: int) -> npt.NDArray[np.float64]:
        along = POSITIONS @ np.array(RELATION_DIRECTIONS[caption.relation])
        return _on_relation(1 / (1 + np.exp(-2 * along)))[None]

    full = relational(scan_of(maps, order=8)).score
    low = relational(scan_of(maps, order=4)).score
    np.testing.assert_allclose(low, full, rtol=0.02)


def test_the_score_is_the_mean_of_the_scores_by_step(scan_of: Build) -> None:
    rng = np.random.default_rng(3)
    scan = scan_of(lambda *_: _on_relation(rng.uniform(size=len(POSITIONS)))[None]).compute()
    steps = xr.concat([scan, scan * rng.uniform(), scan * rng.uniform()], "step", data_vars="all")
    steps = steps.assign(region_coefficients=scan["region_coefficients"])
    scores = relational(steps)
    np.testing.assert_allclose(scores.profile.mean(axis=0), scores.score)
    assert len(scores.profile) == 3


def test_prompts_of_one_relation_are_refused(scan_of: Build) -> None:
    scan = scan_of(lambda *_: _on_relation(np.ones(len(POSITIONS)))[None])
    one = scan.isel(sample=(scan["relation"] == "above").to_numpy())
    with pytest.raises(MetricError, match="at least two relations"):
        relational(one)


def test_prompts_that_say_no_relation_are_refused(scan_of: Build) -> None:
    scan = scan_of(lambda *_: _on_relation(np.ones(len(POSITIONS)))[None])
    other_roles = scan.assign_coords(role=[f"word{i}" for i in range(scan.sizes["role"])])
    for bare in (scan.drop_vars("relation"), other_roles):
        with pytest.raises(MetricError, match="prompts that mark their relation words"):
            relational(bare)
    beside = scan.assign_coords(relation=("sample", ["beside"] * scan.sizes["sample"]))
    with pytest.raises(MetricError, match="no direction for the relation 'beside'"):
        relational(beside)


def test_the_same_scan_gives_the_same_numbers(scan_of: Build) -> None:
    rng = np.random.default_rng(2)
    scan = scan_of(lambda *_: _on_relation(rng.uniform(size=len(POSITIONS)))[None]).compute()
    first, second = relational(scan), relational(scan)
    np.testing.assert_array_equal(first.p_value, second.p_value)
    np.testing.assert_array_equal(first.ci_low, second.ci_low)
