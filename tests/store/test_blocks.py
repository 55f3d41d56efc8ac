"""What is read of a block is what Zarr reads, and no more than was asked for."""

import numpy as np
import pytest
import zarr
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import compress

from attnsearch.errors import StoreError
from attnsearch.store import open_scan
from attnsearch.store.blocks import content_bytes
from attnsearch.store.local import LocalStorage


@pytest.fixture(scope="module")
def written(tmp_path_factory, make):
    """A store with flagged samples, and its arrays as Zarr reads them."""
    store = tmp_path_factory.mktemp("blocks") / "s.zarr"
    scan = make(flagged=(1, 6))
    scan.write(store)
    group = zarr.open_group(store, mode="r")["model"]
    shown = [row for row in range(scan.layout.samples) if row not in scan.flagged]
    arrays = {spec.name: group[spec.name][:][shown] for spec in scan.layout.arrays()}
    return store, arrays


def indices(size):
    """Ways to index a dimension: a number, a slice, or a list in any order."""
    numbers = st.integers(-size, size - 1)
    return st.one_of(
        numbers,
        st.slices(size),
        st.lists(numbers, max_size=2 * size).map(lambda each: np.array(each, dtype=np.intp)),
    )


@examples(18, deep=200)
@given(st.data())
def test_any_part_of_any_array_is_as_zarr_reads_it(written, data):
    store, arrays = written
    name = data.draw(st.sampled_from(sorted(arrays)))
    lazy = open_scan(store)[name]
    chosen = {
        dimension: data.draw(indices(size), label=dimension)
        for dimension, size in lazy.sizes.items()
    }
    expected = arrays[name]
    for axis, one in reversed(list(enumerate(chosen.values()))):
        expected = expected[(slice(None),) * axis + (one,)]
    np.testing.assert_array_equal(lazy.isel(chosen).compute(), expected)


def test_of_a_shard_only_the_wanted_chunks_are_read(written, monkeypatch):
    store, _ = written
    read = []
    real = LocalStorage.read_parts

    def watched(self, name, spans):
        parts = real(self, name, spans)
        read.append(sum(map(len, parts)))
        return parts

    monkeypatch.setattr(LocalStorage, "read_parts", watched)
    sketch = open_scan(store)["sketch"]
    sketch.compute()
    everything, read[:] = sum(read), []
    sketch.isel(branch=0, role=2).compute()
    branches, roles = sketch.sizes["branch"], sketch.sizes["role"]
    index = sum(path.stat().st_size > 0 for path in (store / "model/sketch").glob("c.*")) * (
        16 * branches * roles + 4
    )
    assert sum(read) - index < 2 * (everything - index) / (branches * roles)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65791, 65792, 70_000])
def test_a_frame_says_how_much_it_holds(size):
    assert content_bytes(compress(bytes(size), 1)) == size


def test_a_chunk_that_holds_less_than_it_should_is_damage(make, tmp_path):
    scan = make()
    store = tmp_path / "s.zarr"
    scan.write(store)
    file = store / "model" / "entropy" / "c.0.0.0.0.0"
    whole = file.read_bytes()
    short = compress(bytes(16), 1)
    # The record tells the size only, which is what a reader looks at.
    skippable = len(whole) - len(short) - 8
    file.write_bytes(
        short + b"\x50\x2a\x4d\x18" + skippable.to_bytes(4, "little") + bytes(skippable)
    )
    with pytest.raises(StoreError, match="cannot be decoded"):
        open_scan(store)["entropy"].compute()
