"""Killed at any instant, nothing committed is lost and the finished store has the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnsearch.store import open_scan

ROOT = Path(__file__).resolve().parents[2]


def tree_bytes(store):
    return {
        str(path.relative_to(store)): path.read_bytes() if path.is_file() else None
        for path in store.rglob("*")
    }


def test_a_scan_killed_anywhere_and_resumed_equals_one_that_was_not(tmp_path):
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("interrupted.py"), tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 20
    reference = tree_bytes(tmp_path / "reference")
    stores = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(stores) > 20
    for store in stores:
        found = tree_bytes(store)
        assert found.keys() == reference.keys(), store.name
        assert [name for name in found if found[name] != reference[name]] == [], store.name


def test_writing_in_one_go_or_in_three_sessions_gives_the_same_bytes(scan, tmp_path):
    scan.write(tmp_path / "whole")
    for blocks in (1, 2, 3, 3):
        scan.write(tmp_path / "parts", blocks=blocks)
    assert tree_bytes(tmp_path / "whole") == tree_bytes(tmp_path / "parts")


def test_a_second_scan_changes_nothing_of_the_first(make, scan, store):
    scan.write(store, "first")
    before = tree_bytes(store / "first")
    make(samples=2, layers=1).write(store, "second")
    assert tree_bytes(store / "first") == before


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_torn_ledger_costs_only_the_torn_block(scan, tmp_path, cut):
    scan.write(tmp_path / "whole")
    scan.write(tmp_path / "torn")
    ledger = tmp_path / "torn" / "model" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-cut])
    assert open_scan(tmp_path / "torn").sizes["sample"] == 6
    assert scan.open(tmp_path / "torn").committed == 2
    assert not (tmp_path / "torn" / "model" / "sketch" / "c.2.0.0.0.0.0.0").exists()
    scan.write(tmp_path / "torn")
    assert tree_bytes(tmp_path / "torn") == tree_bytes(tmp_path / "whole")


def test_what_a_killed_writer_leaves_is_swept(scan, store):
    scan.write(store, blocks=2)
    before = tree_bytes(store)
    (store / "zarr.json.partial").write_text("half")
    with (store / "model" / "ledger.jsonl").open("ab") as ledger:
        ledger.write(b'{"block":2,"crc":1')
    (store / "model" / "peak" / "c.2.0.0.0.0").write_text("whole but not in the ledger")
    (store / "model" / "sketch" / "c.2.0.0.0.0.0.abc.partial").write_text("half")
    scan.open(store)
    assert tree_bytes(store) == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds a descriptor's path in /proc")
def test_a_ledger_line_is_written_only_after_its_files_are_on_the_disk(scan, store, monkeypatch):
    writer = scan.open(store)
    synced = []
    fsync = os.fsync

    def record(descriptor):
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", record)
    writer.write_block(0, scan.block(0))
    group = store / "model"
    files = {group / spec.file(0) for spec in scan.layout.arrays()}
    *data, ledger = synced
    assert ledger == group / "ledger.jsonl"
    assert set(data) == files | {file.parent for file in files}
    for file in files:
        assert data.index(file) < data.index(file.parent)
