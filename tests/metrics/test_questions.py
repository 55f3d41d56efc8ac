"""What a question means, and where a bad one is wrong."""

from contextlib import suppress

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.aggregation import Aggregator
from attnsearch.errors import MetricError
from attnsearch.metrics import METRICS, View, head_scores, parse, rank
from attnsearch.metrics.filters import matching
from attnsearch.metrics.planted import Kind, Plant, planted_scan


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    plants = [Plant(kind=Kind.RELATIONAL, strength=1), Plant(kind=Kind.SHAPE, strength=2), Plant()]
    scan = planted_scan(plants, 0, replicates=2)
    scan["score_shape"] = ("sample", np.arange(scan.sizes["sample"]) % 3 == 0)
    return scan.assign_coords(seed=("sample", np.arange(scan.sizes["sample"]) // 96))


def score(scan: xr.Dataset, question: str) -> np.ndarray:
    return head_scores("planted", scan, parse(question), Aggregator()).score


def test_arithmetic_is_that_of_the_scores(scan: xr.Dataset) -> None:
    one, other = score(scan, "object1 -> shape1"), score(scan, "mass(relation + shape2)")
    for text, expected in {
        "object1 -> shape1 - mass(relation+shape2)": one - other,
        "2 * (object1 -> shape1) + 1": 2 * one + 1,
        "object1 -> shape1 + 3 * mass(relation+shape2)": one + 3 * other,
        "-(object1 -> shape1) / 4": -one / 4,
        "1 - 2 - mass(relation+shape2)": -1 - other,
        "6 / 3 / mass(relation+shape2)": 2 / other,
        "abs(mass(relation+shape2) - object1 -> shape1)": abs(one - other),
        "object1 -> shape1 * mass(relation+shape2)": one * other,
    }.items():
        np.testing.assert_allclose(score(scan, text), expected, rtol=1e-9, atol=1e-12)


def test_a_question_that_divides_by_nothing_says_so(scan: xr.Dataset) -> None:
    with pytest.raises(MetricError, match="divides by zero"):
        rank({"m": scan}, "relational / (mass(relation) - mass(relation))")
    with pytest.raises(MetricError, match="divides by zero"):
        parse("1 / 0 * relational")


def test_a_plus_after_a_template_belongs_to_its_roles_unless_a_question_follows(
    scan: xr.Dataset,
) -> None:
    one, other, both = (
        score(scan, f"object1 -> {roles}") for roles in ("shape1", "colour1", "shape1+colour1")
    )
    np.testing.assert_allclose(one + other, both, rtol=1e-6)
    summed = score(scan, "object1 -> shape1 + object1 -> colour1")
    np.testing.assert_allclose(summed, both, rtol=1e-6)


def test_roles_and_regions_of_any_letters_can_be_asked_about(scan: xr.Dataset) -> None:
    names = {"shape1": "cat's", "relation": "über", "colour1": "3 d"}
    other = scan.assign_coords(
        role=[names.get(role, role) for role in scan["role"].to_numpy()],
        region=["an object", *scan["region"].to_numpy()[1:]],
    )
    expected = score(scan, "object1 -> shape1+relation+colour1")
    for text in (
        """'an object' -> "cat's"+über+'3 d'""",
        """share("an object" -> "cat's") + 'an object' -> über + '3 d'""",
    ):
        np.testing.assert_allclose(score(other, text), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "at", "complaint"),
    [
        ("", 1, "found nothing"),
        ("object1 -> ", 11, "expected a role, found nothing"),
        ("object1 -> (shape1)", 12, "expected a role"),
        ("(relational", 12, r"expected '\)'"),
        ("relational)", 11, "expected the end"),
        ("relational + sky", 14, "unknown metric 'sky'"),
        ("relational $ 2", 12, r"cannot read '\$'"),
        ("total(relational)", 17, "expected '->'"),
        ("mass()", 6, "expected a role"),
        ("relational relational", 12, "expected the end"),
    ],
)
def test_a_bad_question_gets_a_line_that_points_at_the_character(
    text: str, at: int, complaint: str
) -> None:
    with pytest.raises(MetricError, match=rf"{complaint}.* at character {at}: ") as raised:
        parse(text)
    assert str(raised.value).endswith(f"{text.rstrip()[: at - 1]}<here>{text[at - 1 :]}")


@pytest.mark.parametrize("text", ["3", "2 * (1 + 4)", "abs(-3)"])
def test_numbers_alone_are_no_question(text: str) -> None:
    with pytest.raises(MetricError, match="says nothing about heads"):
        parse(text)


@given(st.text(max_size=60) | st.text("()+-*/ab->1 ,'", max_size=400))
def test_whatever_is_asked_is_a_question_or_gets_one_complaint(text: str) -> None:
    with suppress(MetricError):
        parse(text)


def test_a_question_too_deep_or_too_long_is_refused() -> None:
    for text, complaint in (
        ("(" * 2000, "too deep"),
        ("-" * 2000, "too deep"),
        ("1+" * 1001, "2,000 characters"),
    ):
        with pytest.raises(MetricError, match=complaint):
            parse(text)


CONDITIONS = {
    "relation == above": lambda s: s["relation"] == "above",
    "relation in [left, 'right'] and colour1 == red": lambda s: (
        s["relation"].isin(["left", "right"]) & (s["colour1"] == "red")
    ),
    "not relation in [left] or seed == 1": lambda s: (s["relation"] != "left") | (s["seed"] == 1),
    "relation not in [left]": lambda s: s["relation"] != "left",
    "score_shape == true and seed <= 0": lambda s: s["score_shape"] & (s["seed"] <= 0),
    "(seed > -1) and not (score_shape != false)": lambda s: ~s["score_shape"],
    "relation == above or relation == below and seed == 0": lambda s: (
        (s["relation"] == "above") | ((s["relation"] == "below") & (s["seed"] == 0))
    ),
}


@pytest.mark.parametrize("text", CONDITIONS)
def test_a_condition_holds_where_numpy_says_so(scan: xr.Dataset, text: str) -> None:
    np.testing.assert_array_equal(matching(scan, text), CONDITIONS[text](scan).to_numpy())


@pytest.mark.parametrize(
    ("text", "at", "complaint"),
    [
        ("colour9 == red", 1, "unknown name 'colour9'; known: .*colour1"),
        ("relation = left", 10, "cannot read '='"),
        ("relation in left", 13, r"expected '\['"),
        ("relation == ", 12, "expected a value"),
        ("seed == red", 9, "expected a number"),
        ("score_shape == 1", 16, "expected true or false"),
        ("seed == 1 seed == 2", 11, "expected 'and', 'or' or the end"),
    ],
)
def test_a_bad_condition_is_pointed_at(
    scan: xr.Dataset, text: str, at: int, complaint: str
) -> None:
    with pytest.raises(MetricError, match=rf"{complaint}.* at character {at}: "):
        matching(scan, text)


def test_a_condition_is_the_scan_with_the_other_samples_cut_off(scan: xr.Dataset) -> None:
    kept = scan.isel(sample=np.flatnonzero(scan["colour1"] == "red"))
    expected = rank({"m": kept}, "relational")
    assert rank({"m": scan}, "relational", view=View(where="colour1 == red")) == expected


def test_groups_are_the_scan_cut_into_them(scan: xr.Dataset) -> None:
    rows = rank({"m": scan}, "object1 -> shape1", view=View(by="colour1"))
    assert {row.group for row in rows} == {"red", "blue"}
    for colour in ("red", "blue"):
        alone = rank({"m": scan}, "object1 -> shape1", view=View(where=f"colour1 == {colour}"))
        assert {row.head: row.score for row in rows if row.group == colour} == {
            row.head: row.score for row in alone
        }


def test_a_view_that_shows_nothing_is_refused(scan: xr.Dataset) -> None:
    for view, complaint in (
        (View(where="relation == beside"), "no sample of m is left"),
        (View(by="noise_level"), "heads are scored by .*relation.*, not by noise_level"),
        (View(noise=(0.1, 0.2)), "no step of m has a noise level in the range; it has 1"),
    ):
        with pytest.raises(MetricError, match=complaint):
            rank({"m": scan}, "relational", view=view)
    with pytest.raises(MetricError, match="range such as"):
        View(noise=(1.0, 0.0))


def test_every_metric_says_what_it_asks() -> None:
    for metric in METRICS.values():
        assert metric.summary.endswith("?")
        assert metric.low < metric.high
