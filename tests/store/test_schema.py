"""The arithmetic of a layout."""

import json
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.axes import SAMPLE, SKETCH_AXES
from attnsearch.errors import ConfigError, StoreError
from attnsearch.store import COORDINATES, ScanLayout, open_scan

sizes = st.fixed_dictionaries(
    {
        "samples": st.integers(1, 40),
        "steps": st.integers(1, 5),
        "layers": st.integers(1, 5),
        "heads": st.integers(1, 5),
        "order": st.integers(1, 5),
        "block": st.integers(1, 50),
        "canvas": st.tuples(st.integers(1, 9), st.integers(1, 9)),
    }
)


@given(sizes)
def test_blocks_partition_the_samples(make, sizes):
    layout = make(**sizes).layout
    slices = [layout.block_slice(index) for index in range(layout.blocks)]
    samples = [sample for part in slices for sample in range(part.start, part.stop)]
    assert samples == list(range(layout.samples))
    assert all(0 < part.stop - part.start <= layout.block for part in slices)
    with pytest.raises(IndexError):
        layout.block_slice(layout.blocks)


@given(sizes)
def test_chunks_divide_shards_and_a_shard_is_one_block_of_everything(make, sizes):
    layout = make(**sizes).layout
    for spec in layout.arrays():
        shard = spec.shards or spec.chunks
        assert spec.dimensions[0] == SAMPLE
        assert len(spec.dimensions) == len(spec.shape) == len(spec.chunks) == len(shard)
        assert shard == (layout.block, *spec.shape[1:])
        assert all(s % c == 0 for s, c in zip(shard, spec.chunks, strict=True))


@given(sizes)
def test_a_layout_survives_json(make, sizes):
    layout = make(**sizes).layout
    assert ScanLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def test_the_sketch_is_chunked_by_branch_and_role_and_counts_every_map(make):
    layout = make(samples=10, steps=14, layers=4, heads=4, order=6, block=4).layout
    sketch, *others = layout.arrays()
    assert sketch.dimensions == SKETCH_AXES
    assert sketch.chunks == (4, 14, 1, 4, 4, 1, 36)
    assert layout.maps == 10 * 14 * 2 * 4 * 4 == prod(sketch.shape[:5])
    assert sketch.bytes == layout.maps * 8 * 36 * 2
    assert layout.bytes == sketch.bytes + sum(
        prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in others
    )


def test_basis_columns_are_ordered_by_ky_then_kx(make):
    coordinates = make(order=3).layout.index_coordinates()
    assert coordinates["ky"][1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert coordinates["kx"][1].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("name", ["samples", "steps", "layers", "heads", "order", "block"])
def test_a_size_below_one_is_refused_by_name(make, name):
    with pytest.raises(ConfigError, match=name):
        make(**{name: 0})


def test_labels_must_differ(make):
    with pytest.raises(ConfigError, match="branches"):
        make(branches=("cond", "cond"))


def test_a_layout_with_other_fields_is_not_ours(make):
    values = make().layout.to_dict()
    del values["order"]
    with pytest.raises(StoreError, match="order"):
        ScanLayout.from_dict(values)


@pytest.mark.parametrize("spec", COORDINATES, ids=lambda spec: spec.name)
def test_only_what_every_prompt_has_is_required(scan, spec):
    without = {name: v for name, v in scan.coordinates.items() if name != spec.name}
    if spec.optional:
        assert spec.name not in scan.layout.coordinates(without)
    else:
        with pytest.raises(ValueError, match=f"lack {spec.name}"):
            scan.layout.coordinates(without)
    short = scan.coordinates | {spec.name: scan.coordinates[spec.name][:-1]}
    with pytest.raises(ValueError, match=f"{spec.name} has shape"):
        scan.layout.coordinates(short)


def test_coordinates_of_another_kind_are_refused(scan):
    numbers = np.arange(scan.layout.samples)
    with pytest.raises(ValueError, match="prompt is int64"):
        scan.layout.coordinates(scan.coordinates | {"prompt": numbers})
    with pytest.raises(ValueError, match="sample contradicts"):
        scan.layout.coordinates(scan.coordinates | {"sample": numbers + 1})
    assert "sample" in scan.layout.coordinates(scan.coordinates | {"sample": numbers})


def test_prompts_may_bring_text_under_a_free_name(scan):
    numbers = np.arange(scan.layout.samples)
    weather = np.array(["rain"] * scan.layout.samples, dtype=object)
    dimension, values = scan.layout.coordinates(scan.coordinates | {"weather": weather})["weather"]
    assert dimension == SAMPLE
    assert values.tolist() == weather.tolist()
    with pytest.raises(ValueError, match="weather is int64"):
        scan.layout.coordinates(scan.coordinates | {"weather": numbers})
    for name in ("entropy", "thumbnail", "x", "Weather", "a b", ""):
        with pytest.raises(ValueError, match="can be called"):
            scan.layout.coordinates(scan.coordinates | {name: weather})


def test_images_that_nothing_looks_at_have_neither_regions_nor_scores(make, tmp_path):
    scan = make(regions=(), scores=())
    scan.write(tmp_path / "bare.zarr")
    stored = open_scan(tmp_path / "bare.zarr")
    assert {"sketch", "thumbnail"} <= set(stored.data_vars)
    assert not [name for name in stored.variables if name.startswith(("score", "region"))]
    with pytest.raises(ConfigError, match="beauty"):
        make(scores=("beauty",))


@given(st.floats(-64, 64, width=32))
def test_half_precision_holds_a_coefficient_to_one_part_in_2048(value):
    # A coefficient of an orthonormal basis is at most sqrt(N) = 64 on a 64 x 64 grid.
    stored = float(np.float16(value))
    assert abs(stored - value) <= max(abs(value) * 2.0**-11, 2.0**-25)
