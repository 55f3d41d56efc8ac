"""A store that is moved, removed or replaced is gone: not damaged, and not made anew."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from attnsearch.errors import StoreError
from attnsearch.store import (
    Turn,
    make_store,
    open_scan,
    open_scans,
    open_store,
    publish,
    scan_names,
    verify,
)
from attnsearch.store import places as where
from attnsearch.store.objects import ObjectStorage


def tree(folder):
    """Every folder and the bytes of every file, but for claims."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if ".writing" not in path.parts
    }


def move(store):
    store.rename(store.with_name("moved"))


def replace_by_a_folder(store):
    move(store)
    store.mkdir()


def replace_by_a_copy(store):
    move(store)
    shutil.copytree(store.with_name("moved"), store, ignore=lambda *_: [".writing"])


STORE_GONE = {"moved": move, "removed": shutil.rmtree, "replaced": replace_by_a_folder}
SCAN_GONE = {
    "moved": lambda store: (store / "model").rename(store / "other"),
    "removed": lambda store: shutil.rmtree(store / "model"),
}


@pytest.fixture
def said(request):
    """What goes, and what is then said."""
    kind, how = request.param
    if kind == "store":
        return STORE_GONE[how], "store.zarr is gone: it was moved or removed after it was opened"
    return SCAN_GONE[how], "scan model of .*store.zarr is gone: it was removed, renamed or replaced"


GONE = [*(("store", how) for how in STORE_GONE), *(("scan", how) for how in SCAN_GONE)]


@pytest.mark.parametrize("said", GONE, indirect=True, ids=" ".join)
def test_a_writer_stops_and_leaves_nothing(scan, store, tmp_path, said):
    away, line = said
    writer = scan.open(store)
    writer.write_block(0, scan.block(0))
    assert writer.claim(1) is Turn.OURS
    away(store)
    before = tree(tmp_path)
    for act in (
        lambda: writer.write_block(1, scan.block(1)),
        lambda: writer.claim(2),
        lambda: writer.write_block(2, scan.block(2)),
        writer.finalise,
    ):
        with pytest.raises(StoreError, match=line) as caught:
            act()
        assert "\n" not in str(caught.value)
    writer.release()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("said", GONE, indirect=True, ids=" ".join)
def test_a_reader_is_not_told_of_damage(scan, store, said):
    away, line = said
    scan.write(store)
    opened = open_scan(store)
    away(store)
    with pytest.raises(StoreError, match=line):
        opened["sketch"].compute()


def test_another_scan_in_its_place_is_not_taken_for_it(make, scan, store):
    writer = scan.open(store)
    writer.write_block(0, scan.block(0))
    opened = open_scan(store)
    shutil.rmtree(store)
    make(layers=1).write(store, blocks=1)
    before = tree(store)
    for act in (
        lambda: writer.write_block(1, scan.block(1)),
        lambda: opened["entropy"].compute(),
    ):
        with pytest.raises(StoreError, match=r"scan model of .* is gone: .* replaced"):
            act()
    assert tree(store) == before


def test_a_copy_in_its_place_is_not_written_under_a_claim_on_the_store_that_moved(scan, store):
    writer = scan.open(store)
    assert writer.claim(1) is Turn.OURS
    replace_by_a_copy(store)
    before = tree(store)
    with pytest.raises(
        StoreError, match=r"claim \.writing/model@1\.lock is gone, as where a store"
    ):
        writer.write_block(1, scan.block(1))
    assert tree(store) == before


def told(act):
    """What is wrong, if anything."""
    try:
        act()
    except StoreError as error:
        return str(error)
    return ""


@contextmanager
def at_moment(number, act):
    """Something happens before the n-th operation on the disk in the block; whether it came."""
    left, came = number, []

    def before(real):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                patch.undo()
                act()
                came.append(number)
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("open", "fsync", "rename", "mkdir"):
            patch.setattr(os, name, before(getattr(os, name)))
        yield came


@pytest.mark.parametrize("away", [move, shutil.rmtree])
def test_it_may_go_at_any_moment_of_a_write(make, tmp_path, away):
    """And what was moved is whole where it is, and ends with the bytes of one that stayed."""
    scan = make(samples=2, block=1, layers=1, regions=(), scores=())
    scan.write(tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    for moment in range(1, 200, 2):
        store = tmp_path / str(moment) / "store"
        store.parent.mkdir()
        writer = scan.open(store)
        with at_moment(moment, lambda store=store: away(store)) as came:
            said = told(lambda writer=writer: writer.write_block(1, scan.block(1)))
        if not came:
            assert said == ""
            break
        assert not said or "is gone" in said
        assert said or moment > 20  # the last that was to be done was not needed any more
        writer.release()
        assert not store.exists()
        if away is move:
            moved = store.with_name("moved")
            assert [check.findings for check in verify(moved)] == [()]
            assert said or 1 in scan.open(moved).committed()
            if moment % 9 == 1:
                scan.write(moved)
                assert tree(moved) == whole
    assert 20 < moment < 199


def test_it_may_go_while_scans_are_copied_into_it(make, tmp_path):
    scan = make(samples=2, block=1, layers=1, regions=(), scores=())
    scan.write(tmp_path / "source")
    for moment in range(1, 400, 9):
        store = tmp_path / str(moment) / "store"
        store.parent.mkdir()
        make_store(store)
        with at_moment(moment, lambda store=store: move(store)) as came:
            said = told(lambda store=store: publish(tmp_path / "source", store))
        if not came:
            break
        for place in (store, store.with_name("moved")):
            # It went before it was looked for, and a whole one was made, or there is none.
            checks = verify(place) if place.exists() else []
            assert not [each for check in checks for each in check.findings if each.damage]
        assert said or not store.exists() or scan_names(store) == ["model"]
    assert 100 < moment < 391


def test_a_store_in_an_object_store_may_go_too(scan, monkeypatch):
    made = pytest.importorskip("obstore.store").MemoryStore()
    monkeypatch.setattr(where, "object_storage", lambda url: ObjectStorage(made, url))
    writer = scan.open("memory://store")
    writer.write_block(0, scan.block(0))
    opened = open_scan("memory://store")
    storage = where.storage_at("memory://store")
    with storage.waited_claim("any") as claim:
        claim.delete(storage.names(""))
    for act in (
        lambda: writer.claim(1),
        lambda: writer.write_block(1, scan.block(1)),
        lambda: opened["peak"].compute(),
    ):
        with pytest.raises(StoreError, match="memory://store is gone"):
            act()
    assert storage.names("") == []


def test_a_store_that_is_to_be_there_is_not_made(scan, store):
    with pytest.raises(StoreError, match="is gone"):
        type(scan.open(store.with_name("other"))).open(
            store, "model", scan.layout, scan.coordinates, scan.attributes, store_is_there=True
        )
    assert not store.exists()


@pytest.mark.parametrize("open_all", [open_scans, open_store])
def test_a_relative_path_is_settled_when_it_is_opened(scan, tmp_path, monkeypatch, open_all):
    monkeypatch.chdir(tmp_path)
    scan.write(Path("s.zarr"))
    opened = open_all("s.zarr")["model"]
    writer = scan.open(Path("s.zarr"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    np.testing.assert_array_equal(opened["peak"].values, scan.whole("peak"))
    assert writer.claim(0) is Turn.DONE
    assert list(Path().iterdir()) == []


def test_the_same_name_in_two_folders_is_two_stores(make, tmp_path, monkeypatch):
    opened = []
    for folder, flagged in (("one", ()), ("two", (3,))):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        make(flagged=flagged).write(Path("s.zarr"))
        opened.append(open_scan(Path("s.zarr"))["peak"])
    assert opened[0].data.name != opened[1].data.name
    assert [len(array.compute()) for array in opened] == [7, 6]


def test_a_link_that_leads_nowhere_is_said_to_be_one(scan, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nothing")
    for act in (open_scan, open_store, scan_names, verify, scan.open):
        with pytest.raises(StoreError, match=r"link is a link to .*nothing, which does not exist"):
            act(link)
    assert not (tmp_path / "nothing").exists()
    scan.write(tmp_path / "store")
    link.unlink()
    link.symlink_to(tmp_path / "store")
    assert scan_names(link) == ["model"]
