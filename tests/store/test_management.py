"""Scans are removed, renamed and merged, by us or with plain tools, and the store tells the truth.

What is derived from the folders of scans is the list in the root's metadata, nothing else.
"""

import json
import os
import shutil
import sys
from contextlib import suppress

import pytest
import xarray as xr

from attnsearch.errors import StoreError
from attnsearch.store import (
    Turn,
    make_store,
    objects,
    open_scan,
    publish,
    remove,
    rename,
    repair,
    scan_names,
    verify,
)
from attnsearch.store import places as where
from attnsearch.store.local import LocalStorage
from attnsearch.store.objects import ObjectStorage
from attnsearch.store.writer import change_claim


@pytest.fixture(params=["folder", "memory"])
def place(request, tmp_path, monkeypatch):
    """Where a store is: a folder, or a URL."""
    if request.param == "folder":
        return tmp_path / "store"
    made = pytest.importorskip("obstore.store").MemoryStore()
    monkeypatch.setattr(where, "object_storage", lambda url: ObjectStorage(made, url))
    return "memory://store"


def contents(place):
    storage = where.storage_at(place)
    return {name: storage.read(name) for name in storage.names("")}


def findings(place):
    return [finding for check in verify(place) for finding in check.findings]


def listed(store):
    """The scans that are there for whoever has nothing of ours."""
    with xr.open_datatree(store, engine="zarr") as tree:
        return sorted(tree.children)


def test_a_store_of_which_a_scan_was_removed_is_one_that_never_had_it(make, scan, place, tmp_path):
    scan.write(tmp_path / "alone", "kept")
    scan.write(place, "kept")
    make(samples=2).write(place, "other")
    remove(place, "other")
    assert contents(place) == contents(tmp_path / "alone")
    remove(place, "kept")
    assert scan_names(place) == []
    assert findings(place) == []


def test_a_renamed_scan_is_one_that_was_always_called_so(make, scan, place, tmp_path):
    for store, name in ((place, "z"), (tmp_path / "always", "a")):
        make(samples=2).write(store, "other")
        scan.write(store, name, blocks=2)
    rename(place, "z", "a")
    assert contents(place) == contents(tmp_path / "always")
    scan.write(place, "a")
    scan.write(tmp_path / "always", "a")
    assert contents(place) == contents(tmp_path / "always")


def test_scans_of_two_stores_are_merged_and_one_is_copied_alone(make, scan, tmp_path, place):
    scan.write(tmp_path / "first", "model")
    make(samples=2).write(tmp_path / "second", "model")
    make(layers=1).write(tmp_path / "second", "more")
    publish(tmp_path / "first", place)
    assert publish(tmp_path / "second", place, "more") == ["more"]
    with pytest.raises(StoreError, match=r"different scan called model; .*attnsearch store rename"):
        publish(tmp_path / "second", place)
    rename(tmp_path / "second", "model", "small")
    assert publish(tmp_path / "second", place) == ["small"]
    assert scan_names(place) == ["model", "more", "small"]
    assert findings(place) == []


def test_what_is_not_there_or_in_the_way_is_named(make, scan, place):
    scan.write(place)
    make(samples=2).write(place, "other")
    before = contents(place)
    for act, line in (
        (lambda: remove(place, "nobody"), "no scan called 'nobody'; it holds model, other"),
        (lambda: rename(place, "nobody", "x"), "no scan called 'nobody'"),
        (lambda: rename(place, "model", "other"), "holds another scan called other"),
        (lambda: rename(place, "model", "model"), "scan model of .* is called so already"),
        (lambda: rename(place, "model", "a b"), "'a b' cannot be the name of a scan"),
        (lambda: remove(place, ".."), "cannot be the name of a scan"),
        (lambda: remove(place, "model/ledger"), "cannot be the name of a scan"),
    ):
        with pytest.raises(StoreError, match=line) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert contents(place) == before


def test_what_is_none_of_a_scans_is_not_removed_with_it(scan, store):
    scan.write(store)
    (store / "model" / "notes.txt").write_text("years of work")
    for act in (lambda: remove(store, "model"), lambda: rename(store, "model", "other")):
        with pytest.raises(StoreError, match=r"model is no scan: it holds model/notes\.txt"):
            act()
    assert (store / "model" / "notes.txt").read_text() == "years of work"


def test_a_copy_that_was_begun_gives_way_and_a_whole_one_does_not(scan, store):
    scan.write(store, blocks=2)
    whole = contents(store)
    for gone in (["ledger/0.json", "ledger/1.json"], ["ledger"]):
        shutil.copytree(store / "model", store / "begun")
        for name in gone:
            path = store / "begun" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        rename(store, "model", "begun")
        rename(store, "begun", "model")
        assert contents(store) == whole
    shutil.copytree(store / "model", store / "copy")
    for name in ("model", "copy"):
        (store / name / "ledger" / "1.json").rename(store / "record")
        with pytest.raises(StoreError, match=f"holds a copy of scan {name} called .* already"):
            rename(store, name, "copy" if name == "model" else "model")
        (store / "record").rename(store / name / "ledger" / "1.json")


def test_a_scan_that_is_being_written_is_left_alone(scan, place):
    writer = scan.open(place)
    assert writer.claim(1) is Turn.OURS
    for act in (lambda: remove(place, "model"), lambda: rename(place, "model", "other")):
        with pytest.raises(StoreError, match=r"scan model of .* is being written by process \d+"):
            act()
    writer.write_block(1, scan.block(1))
    assert writer.claim(0) is Turn.OURS
    writer.release()
    remove(place, "model")
    with pytest.raises(StoreError, match=r"scan model of .* is gone"):
        writer.claim(0)
    assert contents(place).keys() == {"zarr.json"}


@pytest.mark.parametrize("goes", [False, True])
def test_a_writer_waits_for_who_is_about_to_change_the_scan(scan, store, monkeypatch, goes):
    """Who came second to see the other waits, and finds the scan as it was left, or none."""
    writer = scan.open(store)
    change = LocalStorage(store).claim(change_claim("model"))
    real, waited = LocalStorage.waited_claim, []

    def waited_claim(self, name):
        if name == change_claim("model"):
            waited.append(name)
            if goes:
                shutil.rmtree(store / "model")
            change.release()
        return real(self, name)

    monkeypatch.setattr(LocalStorage, "waited_claim", waited_claim)
    if goes:
        with pytest.raises(StoreError, match=r"scan model of .* is gone"):
            writer.claim(0)
    else:
        assert writer.claim(0) is Turn.OURS
    assert waited
    writer.release()
    assert not (store / ".writing").exists()


def test_two_do_not_change_a_scan_at_once(scan, store):
    scan.write(store)
    change = LocalStorage(store).claim(change_claim("model"))
    with pytest.raises(StoreError, match=r"scan model of .* is being changed by process \d+"):
        remove(store, "model")
    change.release()
    remove(store, "model")


def kill_at(moment, act):
    """Run something in a child that is killed before its n-th change; whether it was."""
    child = os.fork()
    if child == 0:
        left = moment

        def watch(event, _):
            nonlocal left
            if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
                left -= 1
                if left == 0:
                    os._exit(7)

        sys.addaudithook(watch)
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 7)
    return os.waitstatus_to_exitcode(status) == 7


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("verb", ["remove", "rename"])
def test_killed_at_any_moment_the_store_is_whole_and_once_more_is_enough(make, tmp_path, verb):
    act = {
        "remove": lambda store: remove(store, "model"),
        "rename": lambda store: rename(store, "model", "other"),
    }[verb]
    for name, layers in (("a", 1), ("model", 2)):
        small = make(samples=2, layers=layers, regions=(), scores=())
        small.write(tmp_path / "before", name)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    act(tmp_path / "after")
    after = contents(tmp_path / "after")
    # Every moment of the change itself, and some of the files going that are in no store any more.
    for moment in (*range(1, 10), *range(12, 200, 12)):
        store = tmp_path / str(moment)
        shutil.copytree(tmp_path / "before", store)
        killed = kill_at(moment, lambda store=store: act(store))
        assert not [finding for finding in findings(store) if finding.damage]
        assert set(listed(store)) <= set(scan_names(store))
        if "model" in scan_names(store):
            act(store)
        else:
            repair(store, verify(store))
        assert contents(store) == after
        assert not (store / ".writing").exists()
        shutil.rmtree(store)
        if not killed:
            break
    assert moment > 5
    assert not killed


@pytest.mark.parametrize("verb", ["remove", "rename"])
def test_stopped_in_an_object_store_it_is_a_scan_or_none(scan, monkeypatch, verb):
    obstore = pytest.importorskip("obstore.store")
    left, said = 0, []
    real, place = objects._at_once, "memory://store"
    act = {
        "remove": lambda: remove(place, "model"),
        "rename": lambda: rename(place, "model", "other"),
    }[verb]

    def stopped(calls):
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(5, "stopped")
        real(calls)

    for moment in range(1, 8):
        made = obstore.MemoryStore()
        monkeypatch.setattr(
            where, "object_storage", lambda url, made=made: ObjectStorage(made, url)
        )
        scan.write(place)
        left = moment
        with monkeypatch.context() as patch:
            patch.setattr(objects, "_at_once", stopped)
            with suppress(StoreError):
                act()
        assert not [finding for finding in findings(place) if finding.damage]
        # The same command once more, or the one that it names.
        if "model" in scan_names(place) and verb == "rename":
            try:
                act()
            except StoreError as error:
                said.append(str(error))
                remove(place, "model")
        if "model" in where.storage_at(place).folders():
            remove(place, "model")
        repair(place, verify(place))
        assert findings(place) == []
        assert scan_names(place) == ([] if verb == "remove" else ["other"])
        if verb == "rename":
            assert open_scan(place).sizes["sample"] == 7
    for line in said:
        assert "`attnsearch store remove memory://store model` leaves only" in line
    assert bool(said) == (verb == "rename")


PLAIN = {
    "rm": (lambda store: shutil.rmtree(store / "model"), "model no longer there", ["a"]),
    "mv": (
        lambda store: (store / "model").rename(store / "other"),
        "model no longer there; other not listed",
        ["a", "other"],
    ),
    "cp": (
        lambda store: shutil.copytree(store / "model", store / "other"),
        "other not listed",
        ["a", "model", "other"],
    ),
}


@pytest.mark.parametrize("tool", PLAIN)
def test_after_plain_tools_the_list_is_out_of_date_and_nothing_is_damaged(
    make, scan, store, tmp_path, tool
):
    act, differences, names = PLAIN[tool]
    make(samples=2, layers=1).write(store, "a")
    scan.write(store)
    act(store)
    (finding,) = findings(store)
    assert not finding.damage
    assert finding.what == f"the list of scans in zarr.json is out of date: {differences}"
    assert scan_names(store) == names
    before = contents(store)
    assert repair(store, verify(store)) == 0
    assert findings(store) == []
    after = contents(store)
    assert {name for name in after if after[name] != before.get(name)} == {"zarr.json"}
    assert listed(store) == names  # none of them reads as NaN in plain xarray
    for name in names:
        make(samples=2, layers=1).write(tmp_path / "fresh", name) if name == "a" else scan.write(
            tmp_path / "fresh", name
        )
    assert after == contents(tmp_path / "fresh")


def test_whatever_writes_mends_the_list(make, scan, store, tmp_path):
    small = make(samples=2, layers=1)
    small.write(tmp_path / "other store", "c")
    small.write(store, "b")
    for act in (
        lambda: small.write(store, "b"),
        lambda: publish(tmp_path / "other store", store),
        lambda: remove(store, "c"),
        lambda: rename(store, "b", "d"),
        lambda: make_store(store),
    ):
        small.write(store, "gone")
        shutil.rmtree(store / "gone")
        assert [finding.damage for finding in findings(store)] == [False]
        act()
        assert findings(store) == []
        assert listed(store) == scan_names(store)


def test_a_list_with_a_damaged_byte_is_damaged(make, store):
    make(samples=2, layers=1).write(store, "a")
    make(samples=2, layers=1).write(store, "b")
    data = (store / "zarr.json").read_bytes()
    names = [data.index(word) + 1 for word in (b'"a"', b'"b"', b'"a/', b'"b/')]
    for position in [*range(0, len(data), len(data) // 12), *names]:
        flipped = data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
        (store / "zarr.json").write_bytes(flipped)
        (finding,) = findings(store)
        assert finding.damage
        assert finding.what == "zarr.json does not list the scans as they are"
    shutil.rmtree(store / "a")
    (store / "zarr.json").write_bytes(data)
    assert [finding.damage for finding in findings(store)] == [False]
    metadata = json.loads(data)
    metadata["consolidated_metadata"]["metadata"]["b"]["attributes"]["sampler"] = "another"
    (store / "zarr.json").write_text(json.dumps(metadata, indent=2, sort_keys=True) + "\n")
    assert [finding.damage for finding in findings(store)] == [True]


def test_a_store_without_scans_can_be_made(scan, store):
    make_store(store)
    assert scan_names(store) == []
    scan.write(store)
    make_store(store)
    assert scan_names(store) == ["model"]
