"""Killed at any instant, nothing committed is lost and the finished store has the same bytes."""

import pytest

from attnsearch.store import open_scan


def tree_bytes(store):
    return {
        str(path.relative_to(store)): path.read_bytes() if path.is_file() else None
        for path in store.rglob("*")
    }


def test_writing_in_one_go_or_in_three_sessions_gives_the_same_bytes(scan, tmp_path):
    scan.write(tmp_path / "whole")
    for blocks in (1, 1, 2, 3, 3):
        scan.write(tmp_path / "parts", blocks=blocks)
    assert tree_bytes(tmp_path / "whole") == tree_bytes(tmp_path / "parts")


def test_a_second_scan_changes_nothing_of_the_first(make, scan, store):
    scan.write(store, "first")
    before = tree_bytes(store / "first")
    make(samples=2, layers=1).write(store, "second")
    assert tree_bytes(store / "first") == before


@pytest.mark.parametrize("cut", [0, 1, 40, 300])
def test_a_torn_record_costs_its_block_alone(scan, tmp_path, cut):
    scan.write(tmp_path / "whole")
    scan.write(tmp_path / "torn", blocks=2)
    record = tmp_path / "torn" / "model" / "ledger" / "0.json"
    record.write_bytes(record.read_bytes()[:cut])
    assert open_scan(tmp_path / "torn")["sample"].values.tolist() == [3, 4, 5]
    assert scan.open(tmp_path / "torn").committed() == {1}
    scan.write(tmp_path / "torn")
    assert tree_bytes(tmp_path / "torn") == tree_bytes(tmp_path / "whole")


def test_blocks_written_in_any_order_give_the_same_bytes(scan, tmp_path):
    scan.write(tmp_path / "whole")
    with scan.open(tmp_path / "parts") as writer:
        writer.write_block(2, scan.block(2))
        writer.write_block(0, scan.block(0))
    assert open_scan(tmp_path / "parts")["sample"].values.tolist() == [0, 1, 2, 6]
    scan.write(tmp_path / "parts")
    assert tree_bytes(tmp_path / "parts") == tree_bytes(tmp_path / "whole")


def test_what_a_killed_writer_leaves_is_swept(scan, tmp_path):
    scan.write(tmp_path / "whole")
    store = tmp_path / "left"
    scan.write(store, blocks=2)
    (store / ".writing").mkdir()
    for name in ("model@2.lock", "model@2.0", "model@2.11", "model@0.lock", "store.lock"):
        (store / ".writing" / name).write_text("half")
    (store / "model" / "peak" / "c.2.0.0.0.0").write_text("whole but not in the ledger")
    assert open_scan(store).sizes["sample"] == 6
    scan.write(store)
    assert tree_bytes(store) == tree_bytes(tmp_path / "whole")


def test_a_creation_that_was_killed_under_another_plan_leaves_nothing(make, scan, tmp_path):
    scan.write(tmp_path / "whole")
    store = tmp_path / "store"
    make(regions=(), layers=4).open(store)
    (store / "model" / "ledger" / "fixed.json").unlink()
    scan.write(store)
    assert tree_bytes(store) == tree_bytes(tmp_path / "whole")
