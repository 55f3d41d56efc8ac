"""What is published is what was scanned, and is seen when it is whole."""

import pytest

from attnsearch.errors import StoreError
from attnsearch.store import open_scan, publish, scan_names, verify
from attnsearch.store import places as where
from attnsearch.store.local import LocalClaim
from attnsearch.store.objects import ObjectStorage


@pytest.fixture(params=["folder", "memory"])
def target(request, tmp_path, monkeypatch):
    """Where to publish: a folder, or a URL."""
    if request.param == "folder":
        return tmp_path / "published"
    made = pytest.importorskip("obstore.store").MemoryStore()
    monkeypatch.setattr(where, "object_storage", lambda url: ObjectStorage(made, url))
    return "memory://published"


def contents(place):
    storage = where.storage_at(place)
    return {name: storage.read(name) for name in storage.names("")}


def test_a_published_store_has_the_bytes_of_its_source(make, scan, store, target):
    scan.write(store, "first")
    make(samples=2, flagged=(1,)).write(store, "second")
    told = []
    assert publish(store, target, advance=told.append) == ["first", "second"]
    assert sum(told) == 4
    assert contents(target) == contents(store)
    assert [check.findings for check in verify(target)] == [(), ()]


def test_publishing_again_copies_nothing_and_later_scans_are_added(make, scan, store, target):
    scan.write(store, "first")
    publish(store, target)
    before = contents(target)
    assert publish(store, target) == []
    assert contents(target) == before
    make(samples=2).write(store, "second")
    assert publish(store, target, "second") == ["second"]
    assert scan_names(target) == ["first", "second"]
    assert before.items() - contents(target).items() == {("zarr.json", before["zarr.json"])}


def test_what_is_there_from_elsewhere_stays(make, scan, store, tmp_path, target):
    make(layers=3).write(tmp_path / "other", "other")
    publish(tmp_path / "other", target)
    scan.write(store)
    publish(store, target)
    assert scan_names(target) == ["model", "other"]
    make(samples=2).write(tmp_path / "same name")
    with pytest.raises(StoreError, match="different scan called model"):
        publish(tmp_path / "same name", target)
    assert open_scan(target, "model").sizes["sample"] == 7


def test_a_scan_that_is_not_complete_or_damaged_is_not_published(scan, store, target):
    scan.write(store, blocks=2)
    with pytest.raises(StoreError, match=r"not complete: 2 of 3 blocks"):
        publish(store, target)
    scan.write(store)
    chunk = store / "model/peak/c.1.0.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"peak/c\.1.* is not what was written"):
        publish(store, target)
    assert scan_names(target) == []
    with pytest.raises(StoreError, match="no scan called 'nobody'"):
        publish(store, target, "nobody")


@pytest.mark.parametrize("writes", range(1, 8))
def test_nothing_is_seen_before_it_is_whole(scan, store, tmp_path, monkeypatch, writes):
    scan.write(store)
    target = tmp_path / "published"
    real, left = LocalClaim.write, writes

    def write(self, files):
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(28, "No space left on device")
        real(self, files)

    with monkeypatch.context() as patch:
        patch.setattr(LocalClaim, "write", write)
        with pytest.raises(StoreError, match=r"cannot publish to .*No space left"):
            publish(store, target)
    if (target / "zarr.json").exists() and scan_names(target):
        with pytest.raises(StoreError, match="no finished block"):
            open_scan(target)
    publish(store, target)
    assert contents(target) == contents(store)
