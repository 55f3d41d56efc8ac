"""What was written is what is read, by us and by plain xarray."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import xarray as xr
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.errors import StoreError
from attnsearch.store import COORDINATES, layout_of, lazy, open_scan, open_store, scan_names


def assert_holds(dataset, scan):
    for spec in scan.layout.arrays():
        stored, given_values = dataset[spec.name], scan.whole(spec.name)
        assert stored.dims == spec.dimensions
        assert stored.dtype == spec.dtype
        np.testing.assert_array_equal(stored.values, given_values.astype(spec.dtype))
    for name, values in scan.coordinates.items():
        np.testing.assert_array_equal(dataset.coords[name].values, values)
    for name, (dimension, values) in scan.layout.index_coordinates().items():
        assert dataset.coords[name].dims == (dimension,)
        np.testing.assert_array_equal(dataset.coords[name].values, values)


def test_every_array_and_coordinate_comes_back(scan, store):
    scan.write(store)
    dataset = open_scan(store)
    assert_holds(dataset, scan)
    assert layout_of(dataset) == scan.layout
    assert dataset.attrs.items() >= scan.attributes.items()
    assert {spec.name for spec in COORDINATES} <= set(dataset.coords)


@examples(8, deep=80)
@given(
    samples=st.integers(1, 9),
    block=st.integers(1, 10),
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    order=st.integers(1, 3),
    roles=st.sampled_from([("one",), ("one", "two")]),
)
def test_any_layout_comes_back(make, samples, block, layers, heads, order, roles):
    scan = make(
        samples=samples, block=block, layers=layers, heads=heads, order=order, roles=roles, steps=1
    )
    with TemporaryDirectory() as folder:
        scan.write(Path(folder) / "s")
        assert_holds(open_scan(Path(folder) / "s"), scan)


def test_half_precision_loses_at_most_one_part_in_2048(scan, store):
    scan.write(store)
    stored = open_scan(store)["sketch"].values.astype(np.float64)
    exact = scan.whole("sketch").astype(np.float64)
    assert (np.abs(stored - exact) <= np.maximum(np.abs(exact) * 2.0**-11, 2.0**-25)).all()
    assert (stored != exact).any()


def test_plain_xarray_opens_a_store_of_two_different_scans(make, scan, store):
    # Warnings are errors in this suite, so opening without a warning is part of the claim.
    other = make(samples=4, layers=3, heads=1, order=3, steps=5)
    scan.write(store, "first")
    other.write(store, "second")
    tree = xr.open_datatree(store, engine="zarr")
    assert set(tree.children) == {"first", "second"}
    assert_holds(tree["first"].to_dataset(), scan)
    assert_holds(tree["second"].to_dataset(), other)
    assert_holds(xr.open_zarr(store, group="second"), other)
    assert_holds(open_store(store)["first"].to_dataset(), scan)
    assert_holds(open_scan(store, "second"), other)
    assert scan_names(store) == ["first", "second"]


def test_a_store_opens_in_plain_xarray_before_it_is_finished(scan, store):
    writer = scan.open(store)
    writer.write_block(0, scan.block(0))
    tree = xr.open_datatree(store, engine="zarr")
    sketch = xr.open_zarr(store, group="model")["sketch"]
    np.testing.assert_array_equal(tree["model/sketch"].values, sketch.values)
    assert np.isfinite(sketch[:3]).all()
    assert np.isnan(sketch[3:]).all()


def test_unwritten_samples_are_never_shown(scan, store):
    for blocks, samples in ((1, 3), (2, 6), (3, 7)):
        scan.write(store, blocks=blocks)
        for dataset in (open_scan(store), open_store(store)["model"].to_dataset()):
            assert dataset.sizes["sample"] == samples
            assert np.isfinite(dataset["sketch"].values).all()
            assert dataset["prompt"].size == samples
            assert layout_of(dataset).samples == 7


def test_data_is_lazy_in_chunks_of_whole_blocks_and_coordinates_are_in_memory(
    scan, store, monkeypatch
):
    scan.write(store)
    block_bytes = scan.layout.bytes * 3 // 7
    for blocks, pieces in ((1, (3, 3, 1)), (2, (6, 1)), (3, (7,))):
        monkeypatch.setattr(lazy, "_PIECE_BYTES", blocks * block_bytes)
        dataset = open_scan(store)
        for spec in scan.layout.arrays():
            per_dimension = dataset[spec.name].chunks
            assert per_dimension == (pieces, *((size,) for size in spec.shape[1:]))
            whole = scan.whole(spec.name).astype(spec.dtype)
            np.testing.assert_array_equal(dataset[spec.name], whole)
    assert all(coordinate.chunks is None for coordinate in dataset.coords.values())


def test_a_block_is_one_file_of_each_array(scan, store):
    scan.write(store)
    for spec in scan.layout.arrays():
        written = {f"{spec.name}/{path.name}" for path in (store / "model" / spec.name).glob("c*")}
        assert written == {spec.file(index) for index in range(scan.layout.blocks)}


def test_an_all_zero_block_is_written_all_the_same(scan, store):
    zeros = {name: np.zeros_like(values) for name, values in scan.block(0).items()}
    scan.open(store).write_block(0, zeros)
    resumed = scan.open(store)
    assert resumed.committed() == {0}
    resumed.write_block(1, zeros)
    assert all((store / "model" / spec.file(1)).is_file() for spec in scan.layout.arrays())


def test_flagged_samples_are_shown_by_xarray_alone_as_nan_and_by_us_not_at_all(make, store):
    scan = make(flagged=(1, 6))
    scan.write(store)
    plain = xr.open_zarr(store, group="model")
    assert np.flatnonzero(plain["flagged"]).tolist() == [1, 6]
    for name, values in plain.data_vars.items():
        if values.dtype.kind == "f":
            assert np.isnan(values[[1, 6]]).all(), name
    for dataset in (open_scan(store), open_store(store)["model"].to_dataset()):
        assert dataset["sample"].values.tolist() == [0, 2, 3, 4, 5]
        assert dataset["prompt"].size == 5
        assert np.isfinite(dataset["sketch"].values).all()
        assert dataset.attrs["flagged_samples"] == 2


def test_a_scan_of_nothing_but_flagged_samples_says_so(make, store):
    make(flagged=tuple(range(7))).write(store)
    with pytest.raises(StoreError, match=r"none of the 7 samples .* is finite"):
        open_scan(store)


def test_any_part_of_the_data_can_be_asked_for(scan, store):
    scan.write(store, blocks=2)
    sketch, whole = open_scan(store)["sketch"], scan.whole("sketch").astype(np.float16)
    parts = [
        np.s_[4], np.s_[5, 1], np.s_[1:5], np.s_[::2], np.s_[::-1], np.s_[[3, 0, 4], :, 1],
        np.s_[2:3, 0, :, 1], np.s_[0:0], np.s_[..., 2], np.s_[5:, ::-1],
    ]  # fmt: skip
    for part in parts:
        np.testing.assert_array_equal(sketch[part].values, whole[:6][part])


def test_a_flipped_byte_in_a_sketch_is_noticed_when_read(scan, store):
    scan.write(store)
    file = store / "model" / scan.layout.arrays()[0].file(1)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    dataset = open_scan(store)
    with pytest.raises(StoreError, match=r"sketch/c\.1\..* cannot be decoded"):
        dataset["sketch"].values  # noqa: B018 - reading is the test
    assert np.isfinite(dataset["sketch"][:3]).all()
