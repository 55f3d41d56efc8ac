"""Several writers share a scan, or a store, and nothing is written twice, torn or lost."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from attnsearch.errors import StoreError
from attnsearch.store import Turn, open_scan, open_store, verify
from attnsearch.store.local import LocalClaim, LocalStorage
from attnsearch.store.storage import Holder

# Children are forked from a process with threads, which they do not use.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def tree_bytes(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def work(scan, store, name, pause):
    """Write what nobody else writes until all is there; what one process of a cluster does."""
    with scan.open(store, name) as writer:
        waiting = list(range(scan.layout.blocks))
        while waiting:
            for block in list(waiting):
                turn = writer.claim(block)
                if turn is Turn.OURS:
                    time.sleep(pause)
                    writer.write_block(block, scan.block(block))
                if turn is not Turn.TAKEN:
                    waiting.remove(block)
            time.sleep(0.005)


def start(*args):
    process = multiprocessing.get_context("fork").Process(target=work, args=args)
    process.start()
    return process


def test_a_block_that_is_claimed_belongs_to_one_writer(scan, store):
    first, second = scan.open(store), scan.open(store)
    assert first.claim(1) is Turn.OURS
    assert second.claim(1) is Turn.TAKEN
    with pytest.raises(StoreError, match=rf"being written by process {os.getpid()} on ") as caught:
        second.write_block(1, scan.block(1))
    assert "\n" not in str(caught.value)
    assert second.claim(2) is Turn.OURS
    first.write_block(1, scan.block(1))
    assert second.claim(1) is Turn.DONE


def test_what_a_writer_lets_go_of_is_free(scan, store):
    with scan.open(store) as first:
        first.claim(0)
    second = scan.open(store)
    assert second.claim(0) is Turn.OURS
    second.release()
    assert scan.open(store).claim(0) is Turn.OURS


def test_the_claim_of_a_dead_process_is_free_and_its_leavings_are_swept(scan, store):
    scan.open(store)
    code = (
        "import os, pathlib, signal, sys\n"
        "from attnsearch.store.local import LocalStorage\n"
        "claim = LocalStorage(pathlib.Path(sys.argv[1])).claim('model@0')\n"
        "print(claim, flush=True)\n"
        "pathlib.Path(sys.argv[1], '.writing', 'model@0.0').write_text('half')\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, store], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert b"LocalClaim" in other.stdout.readline()
        while not (store / ".writing" / "model@0.0").exists():
            time.sleep(0.01)
        assert scan.open(store).claim(0) is Turn.TAKEN
        assert str(LocalStorage(store).claim("model@0")).startswith(f"process {other.pid} on ")
        other.kill()
        other.wait()
    writer = scan.open(store)
    assert writer.claim(0) is Turn.OURS
    assert [path.name for path in (store / ".writing").iterdir()] == ["model@0.lock"]
    writer.release()
    assert not (store / ".writing").exists()


def test_a_process_that_dies_while_it_opens_a_scan_leaves_nothing_once_that_is_complete(
    scan, store
):
    writer = scan.open(store)
    code = (
        "import os, pathlib, sys\n"
        "from attnsearch.store.local import LocalStorage\n"
        "claim = LocalStorage(pathlib.Path(sys.argv[1])).claim('store')\n"
        "os._exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, store], check=False).returncode == 7
    assert (store / ".writing" / "store.lock").exists()
    for block in range(scan.layout.blocks):
        writer.write_block(block, scan.block(block))
    writer.finalise()
    assert not (store / ".writing").exists()


@pytest.mark.parametrize(
    "said", [b"", b"[]", b"{}", b'{"host": 3, "pid": "x"}', b"\xff", b"9" * 9999]
)
def test_a_holder_that_says_nothing_sensible_still_holds(tmp_path, said):
    storage = LocalStorage(tmp_path)
    claim = storage.claim("any")
    assert isinstance(claim, LocalClaim)
    (tmp_path / ".writing" / "any.lock").write_bytes(said)
    assert storage.claim("any") == Holder()
    assert str(Holder()) == "another process"
    claim.release()


def test_claims_are_exclusive_however_often_they_change_hands(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count():
        for _ in range(50):
            with LocalStorage(tmp_path / "store").waited_claim("counter"):
                counter.write_text(str(int(counter.read_text()) + 1))

    processes = [multiprocessing.get_context("fork").Process(target=count) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert counter.read_text() == "200"
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize("blocks_pause", [0.0, 0.02])
def test_processes_that_share_a_scan_end_with_the_bytes_of_one(make, tmp_path, blocks_pause):
    scan = make(samples=20, block=2, flagged=(3,))
    scan.write(tmp_path / "alone")
    processes = [start(scan, tmp_path / "shared", "model", blocks_pause) for _ in range(3)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert tree_bytes(tmp_path / "shared") == tree_bytes(tmp_path / "alone")


def test_when_one_of_them_is_killed_the_others_do_its_blocks(make, tmp_path):
    scan = make(samples=20, block=2)
    scan.write(tmp_path / "alone")
    victim = start(scan, tmp_path / "shared", "model", 0.2)
    other = start(scan, tmp_path / "shared", "model", 0.02)
    time.sleep(0.15)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    other.join()
    assert other.exitcode == 0
    assert tree_bytes(tmp_path / "shared") == tree_bytes(tmp_path / "alone")


def test_different_scans_come_into_one_store_at_once(make, tmp_path):
    scans = {"a": make(), "b": make(layers=3), "c.1": make(samples=4), "c": make(steps=1)}
    for name, scan in scans.items():
        scan.write(tmp_path / "in turn", name)
    processes = [start(scan, tmp_path / "at once", name, 0.0) for name, scan in scans.items()]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert tree_bytes(tmp_path / "at once") == tree_bytes(tmp_path / "in turn")


def test_what_is_read_while_others_write_is_whole(make, tmp_path):
    scan = make(samples=40, block=2)
    store = tmp_path / "store"
    scan.open(store)
    processes = [start(scan, store, "model", 0.01) for _ in range(2)]
    seen = 0
    while any(process.is_alive() for process in processes):
        dataset = open_store(store)["model"].to_dataset()
        assert dataset.sizes["sample"] >= seen
        seen = dataset.sizes["sample"]
        rows = dataset["sample"].values
        if seen:
            np.testing.assert_array_equal(
                dataset["sketch"].values, scan.whole("sketch").astype(np.float16)[rows]
            )
        assert [check.findings for check in verify(store)] == [()]
    for process in processes:
        process.join()
    assert open_scan(store).sizes["sample"] == 40


def test_scanning_does_not_look_at_the_clock(scan, tmp_path, monkeypatch):
    scan.write(tmp_path / "before", blocks=2)
    for path in (tmp_path / "before").rglob("*"):
        os.utime(path, (2**33, 2**33))  # the year 2242
    times = iter(range(10**6, 0, -1))
    monkeypatch.setattr("time.time", lambda: float(next(times)))
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    scan.write(tmp_path / "before")
    scan.write(tmp_path / "backwards")
    assert tree_bytes(tmp_path / "before") == tree_bytes(tmp_path / "backwards")


def test_a_place_without_locks_is_refused(scan, tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.raises(StoreError, match="No locks available"):
        scan.open(Path(tmp_path / "store"))
