import numpy as np
import pytest
import xarray as xr
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import attnsearch
from attnsearch.aggregation import basis_of
from attnsearch.capturing.regions import pool, pool_regions
from attnsearch.errors import ConfigError, MetricError
from attnsearch.prompts import parse_template

PROMPTS = [
    parse_template("a {shape1:square} is {relation:above} a {shape2:circle}"),
    parse_template("a {shape1:square} is {relation:below} a {shape2:circle}"),
]
GRID = (4, 6)
TOP = np.arange(32)[:, None] * np.ones(48) < 8  # the upper row of tokens


@pytest.fixture(scope="module")
def recorded(folders):
    """A recording of two images of 4 x 6 tokens, and the images."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folders.pixart, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    with attnsearch.capture(pipe, PROMPTS) as record:
        images = pipe(
            [prompt.text for prompt in PROMPTS], num_inference_steps=2, height=64, width=96,
            use_resolution_binning=False, clean_caption=False,
        ).images  # fmt: skip
    return record, images


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99)
)
@examples(9, deep=100)
def test_pooling_keeps_the_mean(height, width, rows, columns, seed):
    mask = np.random.default_rng(seed).random((height, width))
    pooled = pool(mask, (rows, columns))
    assert pooled.shape == (rows, columns)
    assert pooled.mean() == pytest.approx(mask.mean())


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
@examples(6, deep=200)
def test_pooling_whole_pixels_is_the_mean_of_each_block(tall, wide, seed):
    mask = np.random.default_rng(seed).random((3 * tall, 2 * wide))
    blocks = mask.reshape(3, tall, 2, wide).mean(axis=(1, 3))
    np.testing.assert_allclose(pool(mask, (3, 2)), blocks)


def test_a_function_sees_each_image_with_its_prompt(recorded):
    record, images = recorded
    seen = []

    def segment(image, prompt):
        seen.append((image, prompt))
        return {"object1": TOP}

    record.scan(images=images, regions=segment)
    assert [prompt for _, prompt in seen] == PROMPTS
    for (image, _), expected in zip(seen, images, strict=True):
        assert image.shape == (64, 96, 3)
        np.testing.assert_allclose(image, np.asarray(expected) / 255)


def test_a_template_is_answered_from_the_regions(recorded):
    record, images = recorded
    scan = record.scan(images=images, regions=lambda image, prompt: {"object1": TOP})
    assert list(scan["region"].to_numpy()) == ["object1"]
    assert scan["region_coefficients"].dims == ("sample", "region", "basis")
    top = np.repeat([1.0, 0, 0, 0], 6)
    np.testing.assert_allclose(
        scan["region_coefficients"][:, 0], np.tile(basis_of(scan) @ top, (2, 1)), atol=1e-6
    )
    for answer in attnsearch.rank({"m": scan}, "total(object1 -> relation)"):
        head = scan["sketch"].sel(branch="cond", role="relation").astype("float64")
        maps = head.isel(layer=answer.layer, head=answer.head).to_numpy() @ basis_of(scan)
        assert answer.score == pytest.approx((maps @ top).mean(), rel=1e-3)
        assert answer.prompts == 2


def test_saved_masks_are_the_same_as_a_function(recorded):
    record, images = recorded
    by_function = record.scan(
        images=images, regions=lambda image, prompt: {"low": ~TOP, "high": TOP}
    )
    masks = xr.DataArray(
        np.stack([[~TOP, TOP]] * 2),
        dims=("sample", "region", "y", "x"),
        coords={"region": ["low", "high"]},
    )
    xr.testing.assert_identical(record.scan(regions=masks), by_function)
    turned = masks.transpose("x", "region", "sample", "y")
    xr.testing.assert_identical(record.scan(regions=turned), by_function)


def test_what_is_not_found_is_nan_and_left_out_of_answers(recorded):
    record, images = recorded
    found = iter([{"object1": TOP, "object2": TOP}, {"object1": np.zeros((2, 2))}])
    scan = record.scan(images=images, regions=lambda image, prompt: next(found))
    missing = np.isnan(scan["region_coefficients"]).all("basis").to_numpy()
    assert missing.tolist() == [[False, False], [True, True]]
    answers = attnsearch.rank({"m": scan}, "object2 -> shape2")
    assert {answer.prompts for answer in answers} == {1}


def test_saved_masks_may_be_nan_where_missing(recorded):
    record, _ = recorded
    values = np.stack([[TOP], [np.full(TOP.shape, np.nan)]])
    masks = xr.DataArray(values, dims=("sample", "region", "y", "x"), coords={"region": ["a"]})
    coefficients = record.scan(regions=masks)["region_coefficients"]
    assert np.isnan(coefficients).all("basis").to_numpy().tolist() == [[False], [True]]


def test_without_regions_templates_say_what_is_missing(recorded):
    record, _ = recorded
    with pytest.raises(MetricError, match="nothing looked for objects"):
        attnsearch.rank({"m": record.scan()}, "object1 -> relation")


IMAGES = [Image.new("RGB", (4, 4))] * 2
ONE = xr.DataArray(
    np.ones((1, 1, 4, 4)), dims=("sample", "region", "y", "x"), coords={"region": ["a"]}
)


@pytest.mark.parametrize(
    ("regions", "images", "reason"),
    [
        (lambda image, prompt: {"a": TOP}, None, "needs images= to look at"),
        (lambda image, prompt: {"a": TOP}, IMAGES[:1], "1 images for 2 samples"),
        (lambda image, prompt: {"a": TOP}, [np.zeros((3, 4, 4))] * 2, r"an array \[y, x, rgb\]"),
        (lambda image, prompt: {"a": TOP}, [np.full((4, 4, 3), 7.0)] * 2, r"in \[0, 1\]"),
        (lambda image, prompt: {"a": TOP[0]}, IMAGES, "mask of a in sample 0"),
        (lambda image, prompt: {"a": TOP * 255}, IMAGES, "mask of a in sample 0"),
        (lambda image, prompt: {}, IMAGES, "no region was found"),
        (ONE, None, "masks of 1 images for 2 samples"),
        (ONE.drop_vars("region"), None, "the coordinate region"),
        (ONE.rename(y="row"), None, "dimensions sample, region, y, x"),
    ],
)
def test_regions_that_do_not_fit_are_refused(regions, images, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        pool_regions(regions, images, PROMPTS, GRID)
    assert "\n" not in str(caught.value)


def test_images_without_anything_to_look_for_are_refused(recorded):
    record, images = recorded
    with pytest.raises(ConfigError, match="give regions= too"):
        record.scan(images=images)
