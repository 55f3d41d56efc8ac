"""Templates read off sketches are the templates of the maps."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import xarray as xr

from attnsearch.aggregation import Aggregator, basis_of
from attnsearch.axes import REGIONS, ROLES
from attnsearch.errors import MetricError
from attnsearch.metrics import Template, head_scores, parse, rank
from attnsearch_kernels import dct2

Build = Callable[..., xr.Dataset]
TOKENS = 64


def _scan(scan_of: Build, seeds: int = 1) -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """A scan of random maps and regions, with the maps and regions themselves."""
    rng = np.random.default_rng(0)
    maps: list[np.ndarray] = []

    def random_maps(*_: object) -> np.ndarray:
        logits = rng.normal(size=(3, len(ROLES), TOKENS))
        maps.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
        return maps[-1]

    scan = scan_of(random_maps, seeds)
    regions = rng.uniform(size=(len(maps), len(REGIONS), TOKENS))
    regions[1::4] = np.nan  # nothing was found in these images
    coefficients = regions @ dct2(8, 8, 8).numpy()
    scan["region_coefficients"] = (("sample", "region", "basis"), coefficients.astype(np.float32))
    return scan.chunk({"sample": 32}), np.stack(maps), regions


def _brute(maps: np.ndarray, regions: np.ndarray, region: str, role: str) -> tuple[float, float]:
    """Total and share [head] of materialised maps, mean over the images with objects."""
    found = np.isfinite(regions).all(axis=(1, 2))
    m = regions[found, REGIONS.index(region)]
    total = np.einsum("si,shi->sh", m, maps[found][:, :, ROLES.index(role)])
    return total.mean(axis=0), (total / m.sum(axis=1, keepdims=True)).mean(axis=0)


def test_every_template_is_the_synopsis_of_the_maps(scan_of: Build) -> None:
    scan, maps, regions = _scan(scan_of)
    aggregate = Aggregator()
    for region, role in product(REGIONS, ROLES):
        for name, expected in zip(
            ("total", "share"), _brute(maps, regions, region, role), strict=True
        ):
            question = parse(f"{name}({region} -> {role})")
            found = head_scores("model", scan, question, aggregate)
            np.testing.assert_allclose(found.score, expected, rtol=1e-3)
            assert (found.ci_low <= found.score).all()
            assert (found.score <= found.ci_high).all()
            assert found.prompts == np.isfinite(regions).all(axis=(1, 2)).sum()


def test_fewer_frequencies_err_by_no_more_than_what_they_leave_out(scan_of: Build) -> None:
    scan, maps, regions = _scan(scan_of)
    kept = np.flatnonzero((scan["ky"].to_numpy() < 4) & (scan["kx"].to_numpy() < 4))
    low = scan.isel(basis=kept)
    left_out = np.eye(TOKENS) - basis_of(low).T @ basis_of(low)
    found = np.isfinite(regions).all(axis=(1, 2))
    for region, role in product(REGIONS, ("relation", "shape1")):
        total, _ = _brute(maps, regions, region, role)
        masks = regions[found, REGIONS.index(region)] @ left_out
        rest = maps[found][:, :, ROLES.index(role)] @ left_out
        bound = (np.linalg.norm(masks, axis=1)[:, None] * np.linalg.norm(rest, axis=2)).mean(axis=0)
        scores = head_scores("m", low, parse(f"total({region} -> {role})"), Aggregator()).score
        assert (np.abs(scores - total) <= bound * (1 + 1e-4)).all()


def test_strongest_comes_first(scan_of: Build) -> None:
    scan, *_ = _scan(scan_of)
    scores = [row.score for row in rank({"m": scan}, "object1 -> relation")]
    assert scores == sorted(scores, reverse=True)


def test_a_template_over_all_roles_is_the_whole_attention(scan_of: Build) -> None:
    scan, *_ = _scan(scan_of)
    for row in rank({"m": scan}, f"background -> {'+'.join(ROLES)}"):
        assert row.score == pytest.approx(1, rel=1e-4)


def test_roles_add_up(scan_of: Build) -> None:
    scan, *_ = _scan(scan_of)
    whole, parts = (
        head_scores("m", scan, parse(text), Aggregator()).score
        for text in (
            "total(object2 -> shape2+colour2)",
            "total(object2 -> shape2) + total(object2 -> colour2)",
        )
    )
    np.testing.assert_allclose(whole, parts, rtol=1e-4)


def test_a_contrast_of_uniform_attention_is_nothing(scan_of: Build) -> None:
    scan, *_ = _scan(scan_of)
    flat = scan.copy()
    flat["sketch"] = scan["sketch"].where(scan["ky"] + scan["kx"] == 0, 0)
    for row in rank({"m": flat}, "contrast(object1 -> relation)"):
        assert row.score == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("text", ["object1", "object1 ->", "-> relation", "object1 -> a++b"])
def test_a_malformed_template_is_refused(text: str) -> None:
    with pytest.raises(MetricError, match="is not a template"):
        Template.parse(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("object3 -> relation", "unknown region 'object3'; m has object1"),
        ("object1 -> verb", "unknown role 'verb'; m has colour1"),
    ],
)
def test_what_a_scan_does_not_have_is_named(scan_of: Build, text: str, complaint: str) -> None:
    scan, *_ = _scan(scan_of)
    with pytest.raises(MetricError, match=complaint):
        rank({"m": scan}, text)


def test_without_regions_a_question_about_them_says_so(scan_of: Build) -> None:
    scan, *_ = _scan(scan_of)
    with pytest.raises(MetricError, match="nothing looked for objects in the images of m"):
        rank({"m": scan.drop_dims("region")}, "object1 -> relation")


def test_a_scan_without_any_found_object_is_refused(scan_of: Build) -> None:
    scan = scan_of(lambda *_: np.full((1, len(ROLES), TOKENS), 1 / len(ROLES)))
    with pytest.raises(MetricError, match="object1 was found in no image of m"):
        rank({"m": scan}, "object1 -> relation")
