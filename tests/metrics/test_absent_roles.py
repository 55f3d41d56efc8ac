"""Prompts that lack the words of a role say nothing of how heads attend to it."""

import numpy as np
import pytest
import xarray as xr

from attnsearch.aggregation import Aggregator
from attnsearch.axes import SAMPLE
from attnsearch.clustering import signatures
from attnsearch.errors import MetricError
from attnsearch.metrics import HeadScores, head_scores, parse
from attnsearch.metrics.planted import Kind, Plant, planted_scan
from attnsearch.task.captions import grid_captions
from attnsearch.task.spec import NAMINGS, PRESETS

PLANTS = [
    Plant(kind=Kind.RELATIONAL, strength=2),
    Plant(kind=Kind.COLOUR, strength=4),
    Plant(kind=Kind.SHAPE, strength=4),
    Plant(),
]
COLOURED = (
    "mass(colour1)", "mass(shape1 + colour1)", "object1 -> colour1", "total(object2 -> colour1)",
    "contrast(object1 -> colour1)", "object1 -> colour1 - object1 -> shape1",
    "mass(colour1) / mass(shape1)",
)  # fmt: skip
BOTH = ("colour", "object", "mass(colour1 + colour2)")
OTHERS = ("relational", "shape", "mass(shape1)", "entropy", "positional")


def scan_of(*namings: str) -> xr.Dataset:
    """A scan of the grids that name these colours."""
    captions = [c for naming in namings for c in grid_captions(PRESETS["small"], naming)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnsearch.metrics.planted.grid_captions", lambda _: captions)
        return planted_scan(PLANTS, 0)


@pytest.fixture(scope="module")
def mixed() -> xr.Dataset:
    """With all colours, without either, without both."""
    return scan_of(*NAMINGS)


@pytest.fixture(scope="module")
def plain() -> xr.Dataset:
    return scan_of("no colours")


def scored(scan: xr.Dataset, question: str) -> HeadScores:
    return head_scores("m", scan, parse(question), Aggregator(), draws=200)


@pytest.mark.parametrize("question", [*COLOURED, *BOTH])
def test_prompts_without_the_words_do_not_count(mixed: xr.Dataset, question: str) -> None:
    having = mixed["colour1"].to_numpy() != ""
    if question in BOTH:
        having &= mixed["colour2"].to_numpy() != ""
    alone = scored(mixed.isel({SAMPLE: np.flatnonzero(having)}), question)
    found = scored(mixed, question)
    assert found.prompts == alone.prompts == having.sum()
    np.testing.assert_allclose(found.score, alone.score, rtol=1e-6)
    assert np.abs(found.score).max() > 0.01


@pytest.mark.parametrize("question", OTHERS)
def test_words_that_all_prompts_have_count_in_all(
    mixed: xr.Dataset, plain: xr.Dataset, question: str
) -> None:
    for scan in (mixed, plain):
        assert scored(scan, question).prompts == scan.sizes[SAMPLE]


def test_what_relations_explain_does_not_need_colours(plain: xr.Dataset) -> None:
    assert scored(plain, "relation-variance").score.argmax() == 0


def test_heads_are_found_from_captions_without_colours(plain: xr.Dataset) -> None:
    for question, head in (("relational", 0), ("shape", 2)):
        found = scored(plain, question)
        assert np.abs(found.score).argmax() == head
        assert found.p_value[head] < 0.01


def test_a_role_that_no_prompt_has_is_named(plain: xr.Dataset) -> None:
    for question in COLOURED:
        with pytest.raises(MetricError, match=r"no prompt of m has words of the role colour1$"):
            scored(plain, question)
    for question in BOTH:
        with pytest.raises(MetricError, match=r"of the roles colour1 and colour2$"):
            scored(plain, question)


def test_a_scan_whose_prompts_each_lack_some_role_names_all(mixed: xr.Dataset) -> None:
    once = (mixed["colour1"].to_numpy() == "") | (mixed["colour2"].to_numpy() == "")
    with pytest.raises(MetricError, match=r"of the roles colour1 and shape1 and colour2"):
        scored(mixed.isel({SAMPLE: np.flatnonzero(once)}), "mass(colour1 + shape1 + colour2)")


def test_signatures_hold_the_mass_of_a_role_where_it_is(
    mixed: xr.Dataset, plain: xr.Dataset
) -> None:
    masses = [
        found["signature"].to_numpy()[:, (found["part"] == "mass") & (found["name"] == "colour1")]
        for found in (signatures({"m": scan}) for scan in (mixed, plain))
    ]
    np.testing.assert_allclose(masses[0][:, 0], scored(mixed, "mass(colour1)").score, rtol=1e-5)
    assert not masses[1].any()
