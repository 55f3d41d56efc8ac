"""A store behind a URL of S3, as a user has one; that every law holds there is in test_storages."""

import shutil

import numpy as np
import pytest
import xarray as xr
from obstore.store import S3Store
from typer.testing import CliRunner
from zarr.storage import ObjectStore

from attnsearch.aggregation import Aggregator, Stored
from attnsearch.cli import app
from attnsearch.errors import StoreError
from attnsearch.store import open_scan, publish, scan_names, verify
from attnsearch.store.objects import ObjectStorage
from attnsearch.store.places import storage_at


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def published(scan, store, s3):
    """The URL of a store that was made in a folder, which is there no more."""
    scan.write(store)
    assert publish(store, f"{s3}/deep/in") == ["model"]
    shutil.rmtree(store)
    return f"{s3}/deep/in"


def test_what_was_published_is_read(scan, published):
    found = open_scan(published)
    for name in ("sketch", "entropy", "region_coefficients", "thumbnail"):
        expected = scan.whole(name).astype(found[name].dtype)
        np.testing.assert_array_equal(found[name], expected)
    assert [check.findings for check in verify(published)] == [()]


def test_commands_take_its_url(published):
    for words in (
        ("info", published),
        ("verify", published),
        ("aggregate", published, "entropy"),
        ("aggregate", published, "entropy", "--dry-run"),
    ):
        result = run(*words)
        assert result.exit_code == 0, result.output


def test_nothing_is_kept_where_it_would_have_to_be_uploaded(published):
    storage = storage_at(published)
    before = storage.names("")
    aggregate = Aggregator(worth_keeping=0)
    first = aggregate(open_scan(published), Stored(name="entropy"), ("head",))
    xr.testing.assert_identical(
        first, aggregate(open_scan(published), Stored(name="entropy"), ("head",))
    )
    assert storage.names("") == before


def test_xarray_reads_it_without_us(scan, published, s3):
    bucket = S3Store(s3.removeprefix("s3://"), prefix="deep/in")
    tree = xr.open_datatree(ObjectStore(bucket, read_only=True), engine="zarr")
    np.testing.assert_array_equal(tree["model"]["entropy"], scan.whole("entropy"))


def test_of_a_file_only_what_is_asked_for_is_fetched(published, monkeypatch):
    fetched = []
    read = ObjectStorage.read_parts

    def counted(self, name, spans):
        parts = read(self, name, spans)
        fetched.append((self.size(name), sum(map(len, parts))))
        return parts

    monkeypatch.setattr(ObjectStorage, "read_parts", counted)
    open_scan(published)["sketch"].isel(branch=0, role=2).load()
    assert fetched
    assert all(part < whole / 4 for whole, part in fetched)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "cannot read"),
        ({"url": "s3://no-such-bucket/x"}, "cannot read"),
        ({"url": "nothing/here"}, "is not an attnsearch store"),
    ],
    ids=["nobody answers", "no bucket", "no store"],
)
def test_what_cannot_be_read_is_one_line(published, s3, monkeypatch, change, said):
    url = change.pop("url", published)
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    place = url if "://" in url else f"{s3}/{url}"
    with pytest.raises(StoreError, match=said) as caught:
        scan_names(place)
    assert "\n" not in str(caught.value)
    result = run("info", place)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
