"""Wherever a store lies, the same is promised of it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from attnsearch.errors import StoreError
from attnsearch.store import Turn, open_scan, open_store, repair, scan_names, verify
from attnsearch.store import places as where
from attnsearch.store.local import LocalClaim, LocalStorage
from attnsearch.store.objects import ObjectStorage, object_storage
from attnsearch.store.storage import Holder


@pytest.fixture(params=["folder", "memory", "file", "s3"])
def place(request, tmp_path, monkeypatch):
    """Where a store is to be: a folder, or a URL."""
    if request.param == "folder":
        return tmp_path / "store"
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/some/prefix"
    obstore = pytest.importorskip("obstore.store")
    made = {
        "memory": obstore.MemoryStore,
        "file": lambda: obstore.LocalStore(tmp_path / "objects", mkdir=True),
    }[request.param]()
    url = f"{request.param}://store"
    monkeypatch.setattr(where, "object_storage", lambda _: ObjectStorage(made, url))
    return url


@pytest.fixture
def storage(place):
    return where.storage_at(place)


def contents(place):
    storage = where.storage_at(place)
    return {name: storage.read(name) for name in storage.names("")}


def test_what_is_written_is_read(storage):
    with storage.waited_claim("any") as claim:
        claim.write({"a": b"1", "b/c": b"22", "b/d/e": b""})
        claim.write({"a": b"3"})
        claim.write({})
    assert [storage.read(name) for name in ("a", "b/c", "b/d/e")] == [b"3", b"22", b""]
    assert [storage.size(name) for name in ("a", "b/c", "b/d/e")] == [1, 2, 0]
    assert storage.names("") == ["a", "b/c", "b/d/e"]
    assert storage.names("b") == ["b/c", "b/d/e"]
    assert storage.folders() == ["b"]


def test_what_is_not_there_is_none(storage):
    with storage.waited_claim("any") as claim:
        claim.write({"b/c": b"1"})
        claim.delete(["b/x", "x/y"])
    assert [storage.read(name) for name in ("a", "b/x", "x/y/z")] == [None] * 3
    assert [storage.size(name) for name in ("a", "b/x", "x/y/z")] == [None] * 3
    assert storage.names("absent") == []


def test_what_is_no_file_is_none(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    storage = LocalStorage(tmp_path)
    for name in ("folder", "file/below", "pipe"):
        assert storage.read(name) is None
        assert storage.size(name) is None


def test_what_is_deleted_is_gone(storage):
    with storage.waited_claim("any") as claim:
        claim.write({"b/c": b"1", "b/d": b"2"})
        claim.delete(["b/c"])
    assert storage.names("") == ["b/d"]


def test_a_claim_has_one_holder_until_it_is_released(storage):
    first = storage.claim("model@1")
    held = storage.claim("model@1")
    assert isinstance(held, Holder)
    assert held.pid == os.getpid()
    other = storage.claim("model@2")
    assert not isinstance(other, Holder)
    first.release()
    again = storage.claim("model@1")
    assert not isinstance(again, Holder)
    again.release()
    other.release()


def test_claims_are_no_part_of_a_store(storage):
    with storage.waited_claim("any") as claim:
        claim.write({"a/b": b"1"})
        assert storage.names("") == ["a/b"]
        assert storage.folders() == ["a"]


def test_a_claim_of_a_process_that_died_here_is_free(storage):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lock = ".writing/model@1.lock"
    here = Holder.here()
    for said, free in [
        (Holder(host=here.host, pid=dead.pid, started=here.started), True),
        (Holder(host=here.host, pid=here.pid, started=here.started + 1), True),
        (Holder(host="elsewhere", pid=dead.pid, started=5), False),
    ]:
        with storage.waited_claim("any") as claim:
            claim.write({lock: said.line()})
        claim = storage.claim("model@1")
        # The system itself frees a local one, and what it says does not matter. Not everything
        # that stores objects can replace one on a condition; there it stays.
        if isinstance(storage, LocalStorage):
            assert not isinstance(claim, Holder)
        elif not free or "file" in str(storage):
            assert claim == said
        else:
            assert not isinstance(claim, Holder)
        with storage.waited_claim("any") as other:
            other.delete([lock])


def test_a_scan_is_the_same_wherever_it_lies(scan, place, tmp_path):
    scan.write(tmp_path / "reference")
    scan.write(place, blocks=1)
    scan.write(place)
    reference = where.storage_at(tmp_path / "reference")
    assert contents(place) == {name: reference.read(name) for name in reference.names("")}
    assert scan_names(place) == ["model"]
    np.testing.assert_array_equal(
        open_scan(place)["sketch"].values, scan.whole("sketch").astype(np.float16)
    )
    assert open_store(place)["model"].sizes["sample"] == 7
    assert [check.findings for check in verify(place)] == [()]


def test_two_writers_share_a_scan_wherever_it_lies(scan, place, tmp_path):
    scan.write(tmp_path / "reference")
    first, second = scan.open(place), scan.open(place)
    assert first.claim(0) is Turn.OURS
    assert second.claim(0) is Turn.TAKEN
    with pytest.raises(StoreError, match="being written by process"):
        second.write_block(0, scan.block(0))
    second.write_block(1, scan.block(1))
    first.write_block(0, scan.block(0))
    assert first.claim(1) is Turn.DONE
    scan.write(place)
    assert set(contents(place)) == set(contents(tmp_path / "reference"))


def test_damage_is_found_and_repaired_wherever_it_is(scan, place):
    scan.write(place)
    whole = contents(place)
    storage = where.storage_at(place)
    for name in ("model/peak/c.1.0.0.0.0", "model/ledger/blocks.jsonl", "model/seed/c.0"):
        with storage.waited_claim("any") as claim:
            claim.write({name: whole[name][:-1]})
        assert sum(len(check.findings) for check in verify(place)) == 1
        repair(place, verify(place))
        scan.write(place)
        assert contents(place) == whole


class _CrashError(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("writes", range(1, 9))
def test_a_writer_that_dies_at_any_write_costs_at_most_its_block(
    scan, place, tmp_path, monkeypatch, writes
):
    scan.write(tmp_path / "reference")
    with where.storage_at(place).waited_claim("any") as claim:
        kind = type(claim)
    real, left = kind.write, writes

    def write(self, files):
        nonlocal left
        left -= 1
        if left == 0:
            real(self, dict(list(files.items())[: len(files) // 2]))
            raise _CrashError
        real(self, files)

    done = []
    writers = []

    def run():
        writers.append(scan.open(place))
        for block in range(3):
            writers[0].write_block(block, scan.block(block))
            done.append(block)
        writers[0].finalise()

    with monkeypatch.context() as patch:
        patch.setattr(kind, "write", write)
        with pytest.raises(_CrashError):
            run()
    if done:
        assert set(open_store(place)["model"]["sample"].values // 3) >= set(done)
    if "file" in str(place):
        return  # where claims of the dead have to be removed by hand
    monkeypatch.setattr("attnsearch.store.storage.Holder.is_dead_here", lambda _: True)
    for claim in writers[0]._claims.values() if writers else ():
        if isinstance(claim, LocalClaim):
            os.close(claim._descriptor)  # what the system does for the dead
    scan.write(place)
    assert contents(place) == contents(tmp_path / "reference")


def test_a_url_that_leads_nowhere_is_one_line(scan, monkeypatch):
    pytest.importorskip("obstore")
    for url in ("gopher://hole/x", "s3://", "://"):
        with pytest.raises(StoreError, match="no place for a store") as caught:
            object_storage(url)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(StoreError, match=r'pip install "attnsearch\[objects\]"'):
        open_scan("s3://bucket/x")


def test_what_a_holder_says_is_short_and_plain():
    assert json.loads(Holder.here().line()).keys() == {"host", "pid", "started"}
    assert Holder.parse(Holder.here().line()) == Holder.here()
    assert not Holder.here().is_dead_here()
    assert not Holder().is_dead_here()
    assert not Holder(host=Holder.here().host, pid=2**62).is_dead_here()
