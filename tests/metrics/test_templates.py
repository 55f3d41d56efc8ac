"""Templates read off sketches are the templates of the maps."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from attnsearch.axes import REGIONS, ROLES
from attnsearch.errors import MetricError
from attnsearch.metrics import Template, ask
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


def test_total_and_share_are_those_of_the_maps(scan_of: Build) -> None:
    scan, maps, regions = _scan(scan_of)
    found = np.isfinite(regions).all(axis=(1, 2))
    m = regions[found, REGIONS.index("object1")]
    attention = maps[found][:, :, ROLES.index("relation")]
    total = np.einsum("si,shi->sh", m, attention)
    expected_total = total.mean(axis=0)
    expected_share = (total / m.sum(axis=1, keepdims=True)).mean(axis=0)
    answers = ask({"model": scan}, Template.parse("object1 -> relation"))
    assert len(answers) == 3
    for answer in answers:
        assert answer.total == pytest.approx(expected_total[answer.head], rel=1e-4)
        assert answer.share == pytest.approx(expected_share[answer.head], rel=1e-4)
        assert answer.ci_low <= answer.share <= answer.ci_high
        assert answer.samples == found.sum()
    assert [a.share for a in answers] == sorted((a.share for a in answers), reverse=True)


def test_a_template_over_all_roles_is_the_whole_attention(scan_of: Build) -> None:
    scan, *_ = _scan(scan_of)
    for answer in ask({"model": scan}, Template("background", ROLES)):
        assert answer.share == pytest.approx(1, rel=1e-4)


def test_roles_add_up(scan_of: Build) -> None:
    scan, *_ = _scan(scan_of)
    both = ask({"m": scan}, Template.parse("object2 -> shape2+colour2"))
    parts = [ask({"m": scan}, Template.parse(f"object2 -> {r}")) for r in ("shape2", "colour2")]
    for answer in both:
        summed = sum(p.total for part in parts for p in part if p.head == answer.head)
        assert answer.total == pytest.approx(summed, rel=1e-4)


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
        ask({"m": scan}, Template.parse(text))


def test_without_regions_a_question_about_them_says_so(scan_of: Build) -> None:
    scan, *_ = _scan(scan_of)
    with pytest.raises(MetricError, match="nothing looked for objects in the images of m"):
        ask({"m": scan.drop_dims("region")}, Template.parse("object1 -> relation"))


def test_a_scan_without_any_found_object_is_refused(scan_of: Build) -> None:
    scan = scan_of(lambda *_: np.full((1, len(ROLES), TOKENS), 1 / len(ROLES)))
    with pytest.raises(MetricError, match="object1 was found in no image of m"):
        ask({"m": scan}, Template.parse("object1 -> relation"))
