"""Scores, intervals and nulls do what they say, on scans in which the truth is known."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from attnsearch.aggregation import Aggregator
from attnsearch.axes import ROLES
from attnsearch.errors import MetricError
from attnsearch.metrics import (
    FROM_WEIGHTS,
    METRICS,
    HeadScores,
    View,
    control,
    head_scores,
    parse,
    rank,
)
from attnsearch.metrics.evidence import Directed, Fixed, Mean, Ramped
from attnsearch.metrics.inference import family_wise, infer
from attnsearch.metrics.planted import Kind, Plant, planted_scan
from attnsearch.metrics.reader import Reader
from attnsearch.metrics.variance import Explained

DRAWS = 500
KINDS = {
    "relational": Kind.RELATIONAL,
    "relation-variance": Kind.RELATIONAL,
    "ramp-cosine": Kind.RELATIONAL,
    "ramp-projection": Kind.RELATIONAL,
    "object": Kind.OBJECT,
    "shape": Kind.SHAPE,
    "colour": Kind.COLOUR,
    "positional": Kind.FIXED,
}
OF_MAPS = METRICS.keys() - {"entropy", "sharpness", FROM_WEIGHTS}
QUESTIONS = (*sorted(OF_MAPS), "contrast(object1 -> relation)")


def scored(scan: xr.Dataset, question: str, view: View | None = None) -> HeadScores:
    return head_scores("m", scan, parse(question), Aggregator(), view or View(), DRAWS)


def every_kind() -> list[Plant]:
    return [
        Plant(kind=kind, strength=2.0 if kind is not Kind.DIFFUSE else 0.0)
        for kind in (*Kind, Kind.DIFFUSE, Kind.DIFFUSE)
    ]


def steps_of(*scans: xr.Dataset) -> xr.Dataset:
    """Scans as the steps of one."""
    steps = [each.drop_vars(["region_coefficients", "noise_level"]) for each in scans]
    joined = xr.concat(steps, "step", data_vars="minimal", coords="minimal", compat="override")
    return joined.assign(region_coefficients=scans[0]["region_coefficients"]).assign_coords(
        step=np.arange(len(scans)), noise_level=("step", np.linspace(1, 0, len(scans)))
    )


@pytest.mark.parametrize("metric", KINDS)
def test_a_planted_head_comes_first_and_is_significant(metric: str) -> None:
    scan = planted_scan(every_kind(), 3)
    best = rank({"m": scan}, metric, draws=2_000)[0]
    own = {KINDS[metric]} | ({Kind.OBJECT} if metric in ("shape", "colour") else set())
    assert every_kind()[best.head].kind in own
    assert best.q_value is not None
    assert best.q_value < 0.05
    assert best.p_family is not None
    assert best.p_family < 0.05


def test_a_head_of_one_relation_is_less_relational_and_its_relation_tells_so() -> None:
    plants = [
        Plant(kind=Kind.ONE_RELATION, strength=2, relation="left"),
        Plant(kind=Kind.RELATIONAL, strength=2),
    ]
    scan = planted_scan(plants, 4)
    one, every = scored(scan, "relational").score
    assert 0 < one < every / 4
    rows = rank({"m": scan}, "contrast(object1 -> relation)", view=View(by="relation"))
    strongest = max((row for row in rows if row.head == 0), key=lambda row: row.score)
    assert strongest.group == "left"


def test_the_sign_of_a_planted_head_is_found() -> None:
    plants = [Plant(kind=Kind.RELATIONAL, strength=s) for s in (1.0, -1.0)]
    scan = planted_scan(plants, 5)
    for metric in ("relational", "ramp-cosine", "ramp-projection"):
        positive, negative = scored(scan, metric).score
        assert positive > 0.1
        assert negative < -0.1


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_order_of_heads_and_prompts_changes_nothing(question: str) -> None:
    scan = planted_scan(every_kind(), 6)
    rng = np.random.default_rng(0)
    heads = rng.permutation(scan.sizes["head"])
    straight = scored(scan, question)
    turned = scored(scan.isel(head=heads), question)
    for name in ("score", "ci_low", "ci_high", "p_value", "effect"):
        left, right = getattr(straight, name)[heads], getattr(turned, name)
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    prompts = scored(scan.isel(sample=rng.permutation(scan.sizes["sample"])), question)
    np.testing.assert_allclose(prompts.score, straight.score, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("question", QUESTIONS)
def test_seeds_are_averaged_inside_of_prompts(question: str) -> None:
    """Every sample twice is no more evidence than every sample once."""
    scan = planted_scan(every_kind(), 7)
    doubled = xr.concat([scan, scan], "sample", data_vars="minimal", coords="minimal",
                        compat="override", join="override")  # fmt: skip
    one, two = scored(scan, question), scored(doubled, question)
    for name in ("score", "ci_low", "ci_high", "p_value"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("question", QUESTIONS)
def test_parts_of_the_heads_are_scored_as_all_together(
    question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = planted_scan(every_kind(), 8)
    whole = scored(scan, question)
    monkeypatch.setattr("attnsearch.metrics.inference._NUMBERS_AT_ONCE", 3 * DRAWS)
    parts = scored(scan, question)
    for name in ("score", "ci_low", "p_value", "effect", "largest"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-5, atol=1e-9)


def test_what_relation_explains_is_what_a_regression_says() -> None:
    scan = planted_scan([Plant(kind=Kind.RELATIONAL, strength=1), Plant()], 9)
    evidence = METRICS["relation-variance"].of(Reader(model="m", scan=scan, aggregate=Aggregator()))
    assert isinstance(evidence, Explained)
    prompts = len(evidence.known)
    nuisance = [np.ones(prompts)] + [
        (scan[name].to_numpy() == value).astype(float)
        for name in ("shape1", "colour1", "shape2", "colour2")
        for value in np.unique(scan[name].to_numpy())
    ]
    relation = [
        (scan["relation"].to_numpy() == r).astype(float) for r in np.unique(scan["relation"])
    ]
    small, full = np.stack(nuisance, 1), np.stack([*nuisance, *relation], 1)

    def residual(design: np.ndarray, values: np.ndarray) -> float:
        fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
        return float(np.square(values - fitted).sum())

    for head, found in enumerate(scored(scan, "relation-variance").score):
        values = evidence.values[:, 0, head]
        eta = 1 - residual(full, values) / residual(small, values)
        rank_small, rank_full = np.linalg.matrix_rank(small), np.linalg.matrix_rank(full)
        correction = (prompts - rank_small) / (prompts - rank_full)
        assert found == pytest.approx(1 - (1 - eta) * correction, rel=1e-9)


def test_ramps_have_cosine_one_and_minus_one(scan_of: Callable[..., xr.Dataset]) -> None:
    from attnsearch.axes import RELATION_DIRECTIONS
    from attnsearch.metrics.meaning import token_positions

    def maps(caption, _):
        along = token_positions((8, 8)) @ np.array(RELATION_DIRECTIONS[caption.relation])
        roles = np.zeros((2, len(ROLES), 64))
        roles[:, ROLES.index("relation")] = 0.5 + 0.2 * np.stack([along, -along])
        return roles

    scan = scan_of(maps)
    np.testing.assert_allclose(scored(scan, "ramp-cosine").score, [1, -1], atol=1e-5)
    energy, projection = scored(scan, "ramp-energy").score, scored(scan, "ramp-projection").score
    np.testing.assert_allclose(energy, abs(projection), rtol=1e-4)


def test_the_peak_is_the_largest_step_and_pays_for_having_looked() -> None:
    plants = [[Plant(kind=Kind.RELATIONAL, strength=s), Plant()] for s in (0.3, -2.0, 0.6)]
    scan = steps_of(*(planted_scan(each, 10) for each in plants))
    alone = [scored(scan.isel(step=[step]), "relational") for step in range(3)]
    peak = scored(scan, "relational", View(over="peak"))
    np.testing.assert_allclose(peak.profile[:, 0], [each.score[0] for each in alone], rtol=1e-6)
    assert peak.score[0] == pytest.approx(alone[1].score[0])
    width, width_alone = peak.ci_high[0] - peak.ci_low[0], alone[1].ci_high[0] - alone[1].ci_low[0]
    assert width > width_alone
    assert (peak.p_value >= np.min([each.p_value for each in alone], axis=0) - 0.02).all()
    mean = scored(scan, "relational")
    assert mean.score[0] == pytest.approx(peak.profile[:, 0].mean())


def test_a_window_of_noise_levels_is_those_steps() -> None:
    scan = steps_of(*(planted_scan(every_kind(), seed) for seed in (11, 12, 13)))
    window = scored(scan, "relational", View(noise=(0.5, 1.0)))
    cut = scored(scan.isel(step=[0, 1]), "relational")
    np.testing.assert_allclose(window.score, cut.score, rtol=1e-6)
    late = rank({"m": scan}, "relational", view=View(noise=(0.0, 0.5)), draws=DRAWS)
    assert {row.peak_step for row in late} <= {1, 2}


def test_family_wise_values_are_never_below_the_shares_they_adjust() -> None:
    rng = np.random.default_rng(0)
    null = rng.normal(size=(4_000, 30))
    effect = rng.normal(size=30) * 3
    adjusted = family_wise(effect, np.abs(null).max(axis=1))
    single = (1 + (np.abs(null) >= np.abs(effect)).sum(axis=0)) / 4_001
    assert (adjusted >= single - 1e-12).all()
    assert (adjusted <= 1).all()


def test_a_number_that_is_added_changes_no_p_value() -> None:
    scan = planted_scan(every_kind(), 18)
    plain, moved = scored(scan, "relational"), scored(scan, "2 * relational + 1")
    np.testing.assert_allclose(plain.effect, moved.effect, rtol=0.1, atol=0.1)
    np.testing.assert_allclose(plain.p_value, moved.p_value, atol=0.05)


@pytest.mark.parametrize("prompts", [3, 6, 12, 40])
def test_a_family_wise_value_is_no_smaller_than_that_of_the_head_alone(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    values = 1 + rng.normal(size=(prompts, 1, 20))
    evidence = Mean(
        values=values, known=np.ones(prompts, bool), strata=np.zeros(prompts, int), shuffled="sign"
    )
    found = infer(evidence)
    assert (family_wise(found.effect, found.largest) >= found.p_value).all()
    # No share of draws is below that of the two that give every sign, or none, back.
    assert (found.p_value > 0.8 * 2.0 ** (1 - prompts)).all()


def test_intervals_of_a_mean_are_those_of_students_t() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(60, 1, 200))
    evidence = Mean(values=values, known=np.ones(60, bool), strata=np.zeros(60, int))
    found = infer(evidence)
    width = (found.ci_high - found.ci_low) / 2
    expected = 1.96 * values[:, 0].std(axis=0, ddof=1) / np.sqrt(60)
    np.testing.assert_allclose(width, expected, rtol=0.12)
    assert abs(np.mean(width / expected) - 1) < 0.01


def test_prompts_that_do_not_count_change_nothing() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(40, 2, 3))
    known = np.arange(40) < 30
    some = Mean(values=values * known[:, None, None], known=known, strata=np.zeros(40, int),
                shuffled="x")  # fmt: skip
    fewer = some.part(slice(0, 30), slice(None), slice(None))
    left, right = infer(some, draws=DRAWS), infer(fewer, draws=DRAWS)
    np.testing.assert_allclose(left.score, right.score)
    np.testing.assert_allclose(left.ci_low, right.ci_low, atol=0.05)
    assert left.prompts == right.prompts == 30


def test_one_prompt_has_a_score_and_nothing_to_be_sure_of() -> None:
    scan = planted_scan(every_kind(), 14).isel(sample=[5])
    for row in rank({"m": scan}, "contrast(object1 -> relation)"):
        assert np.isfinite(row.score)
        assert (row.ci_low, row.ci_high, row.p_value, row.q_value) == (None,) * 4


def test_controls_are_not_ranked_but_reported() -> None:
    scan, random = planted_scan(every_kind(), 15), planted_scan([Plant(), Plant()], 16)
    scans = {"m": scan, "m-control": random.assign_attrs(control="shuffled weights")}
    assert {row.model for row in rank(scans, "relational")} == {"m"}
    found = control(scans, "relational")
    assert found is not None
    assert found.heads == 2
    assert 0 < found.median <= found.largest
    assert found.largest == pytest.approx(np.abs(scored(random, "relational").score).max())
    assert control({"m": scan}, "relational") is None
    with pytest.raises(MetricError, match="all scans are controls"):
        rank({"c": scans["m-control"]}, "relational")


def test_kinds_of_evidence_agree_on_what_uniform_weights_are() -> None:
    """The score of a subset is the score of weights that are zero elsewhere."""
    scan = planted_scan(every_kind(), 17)
    reader = Reader(model="m", scan=scan, aggregate=Aggregator())
    for name in ("relational", "relation-variance", "ramp-cosine", "object", "positional"):
        evidence = METRICS[name].of(reader)
        assert isinstance(evidence, (Directed, Explained, Ramped, Mean, Fixed))
        some = np.arange(len(evidence.known)) % 3 > 0
        inside = evidence.part(np.flatnonzero(some), slice(None), slice(None))
        np.testing.assert_allclose(
            evidence.scores((some / some.sum())[None]),
            inside.scores(np.full((1, some.sum()), 1 / some.sum())),
            rtol=1e-9, atol=1e-12,
        )  # fmt: skip
