"""Embeddings on disk, which anyone may have put there."""

import io
import os
import tracemalloc

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.encoders.cache import EmbeddingCache

SHAPE = (5, 8)
EMBEDDING = torch.arange(40.0).reshape(SHAPE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return EmbeddingCache(tmp_path_factory.mktemp("cache"), "encoder", SHAPE)


def array_file(array: np.ndarray, **header: object) -> bytes:
    """A file of NumPy, whose header may say something else."""
    file = io.BytesIO()
    facts = np.lib.format.header_data_from_array_1_0(array) | header
    np.lib.format.write_array_header_1_0(file, facts)
    return file.getvalue() + array.tobytes()


GOOD = EMBEDDING.numpy()


def test_what_was_written_is_read_bit_for_bit(cache):
    cache.write("a", EMBEDDING)
    assert torch.equal(cache.read("a"), EMBEDDING)
    assert cache.path("a").read_bytes() == array_file(GOOD)
    assert cache.read("b") is None


def test_what_was_read_may_be_changed(cache):
    cache.write("a", EMBEDDING)
    cache.read("a")[0] = 1
    assert torch.equal(cache.read("a"), EMBEDDING)


BAD = {
    "huge": array_file(GOOD, shape=(10**6, 10**6)),
    "negative": array_file(GOOD, shape=(-5, 8)),
    "turned": array_file(GOOD, shape=(8, 5)),
    "by column": array_file(GOOD, fortran_order=True),
    "objects": array_file(GOOD, descr="|O"),
    "doubles": array_file(GOOD.astype(np.float64)),
    "nested": b"\x93NUMPY\x01\x00\xff\xff" + b"[" * 65_535,
    "short": array_file(GOOD)[:-1],
    "long": array_file(GOOD) + b"1",
    "nan": array_file(np.full(SHAPE, np.nan, np.float32)),
    "infinite": array_file(np.full(SHAPE, np.inf, np.float32)),
    "empty": b"",
}


@pytest.mark.parametrize("name", BAD)
def test_another_file_counts_as_none_and_takes_no_memory(cache, name):
    cache.path("a").write_bytes(BAD[name])
    tracemalloc.start()
    try:
        assert cache.read("a") is None
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_counts_as_none(make, tmp_path):
    cache = EmbeddingCache(tmp_path, "encoder", SHAPE)
    make(cache.path("a"))
    assert cache.read("a") is None


@given(data=st.data())
@examples(18, deep=200)
def test_of_any_damaged_file_comes_an_embedding_or_none(cache, data):
    whole = bytearray(array_file(GOOD))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cache.path("a").write_bytes(whole)
    found = cache.read("a")
    assert found is None or (found.shape == SHAPE and found.isfinite().all())
