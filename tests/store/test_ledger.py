"""A record is whole or none, and belongs to its scan or does not count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.store.ledger import (
    BlockRecord,
    FileMark,
    FixedRecord,
    Ledger,
    marks_of,
    parse_block,
    parse_fixed,
)
from attnsearch.store.local import LocalClaim, LocalStorage

BLOCK = BlockRecord(
    block=2, scan=77, flagged=(0, 2), files=marks_of({"sketch/c.é": b"bytes", "peak/c": b""})
)
FIXED = FixedRecord(files=marks_of({"zarr.json": b"{}", "prompt/c.0": b"text"}))
LINES = [(parse_block, BLOCK), (parse_fixed, FIXED)]


@pytest.mark.parametrize(("parse", "record"), LINES)
def test_a_record_comes_back_as_it_was(parse, record):
    assert parse(record.line()) == record


@pytest.mark.parametrize(("parse", "record"), LINES)
def test_a_record_cut_at_any_byte_is_none(parse, record):
    line = record.line()
    assert [cut for cut in range(len(line)) if parse(line[:cut]) is not None] == []


@pytest.mark.parametrize(("parse", "record"), LINES)
def test_a_record_with_any_byte_changed_is_none(parse, record):
    line = record.line()
    for position in range(len(line)):
        for flip in (1, 2, 0x20, 0x80, 0xFF):
            changed = bytearray(line)
            changed[position] ^= flip
            assert parse(bytes(changed)) is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"block":0,"files":[]}\n',
        b'{"block":0,"files":{"a":[1e999,0]},"flagged":[],"scan":0}\n',  # Python reads infinity
        b'{"block":0,"files":{},"flagged":3,"scan":0}\n',
        b"[" * 100_000 + b"\n",
        b"9" * 10_000 + b"\n",
        b"\xff\n",
    ],
)
@pytest.mark.parametrize("parse", [parse_block, parse_fixed])
def test_what_is_no_record_is_not_taken_for_one(parse, line):
    assert parse(line) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(data):
    assert parse_block(data) is None
    assert parse_fixed(data) is None


@pytest.fixture
def ledger(scan, tmp_path):
    """An empty ledger of the scan `model`, and the claim to write it."""
    storage = LocalStorage(tmp_path)
    claim = storage.claim("any")
    assert isinstance(claim, LocalClaim)
    yield Ledger(storage, "model", scan.layout, 77), claim
    claim.release()


def files_of(scan, block):
    return {spec.file(block): spec.name.encode() for spec in scan.layout.arrays()}


def line_of(scan, number, /, **changes):
    files = marks_of(files_of(scan, number))
    values = {"block": number, "scan": 77, "flagged": (), "files": files}
    return BlockRecord(**{**values, **changes}).line()


def test_blocks_may_come_in_any_order_and_are_read_in_theirs(scan, ledger):
    records, claim = ledger
    for block in (2, 0, 1):
        records.add(claim, block, files_of(scan, block), flagged=())
    assert list(records.read()) == [0, 1, 2]


def test_packing_changes_what_is_there_and_not_what_is_read(scan, ledger, tmp_path):
    records, claim = ledger
    for block in (2, 0, 1):
        records.add(claim, block, files_of(scan, block), flagged=[0])
    before = records.read()
    records.pack(claim)
    packed = tmp_path / "model/ledger/blocks.jsonl"
    assert [path.name for path in packed.parent.iterdir()] == ["blocks.jsonl"]
    data = packed.read_bytes()
    assert records.read() == before
    assert all(records.has(block) for block in before)
    records.pack(claim)
    assert packed.read_bytes() == data


class Watched(LocalStorage):
    """A storage in which something happens right before a given read or listing."""

    def __init__(self, root, moment, happen):
        super().__init__(root)
        self.left = moment
        self.happen = happen

    def read(self, name):
        self._come()
        return super().read(name)

    def names(self, folder):
        self._come()
        return super().names(folder)

    def _come(self):
        self.left -= 1
        if self.left == 0:
            self.happen()


def test_packing_at_any_moment_takes_nothing_from_who_reads(scan, ledger, tmp_path):
    records, claim = ledger
    moment = 0
    while True:
        moment += 1
        for block in range(3):
            records.add(claim, block, files_of(scan, block), flagged=())
        before = records.read()
        storage = Watched(tmp_path, moment, lambda: records.pack(claim))
        reader = Ledger(storage, "model", scan.layout, 77)
        assert reader.read() == before
        assert reader.damaged() == {}
        if storage.left > 0:
            break
        records.drop(claim, range(3))
    assert moment > 6  # both listings and every record were moments


def test_a_damaged_line_of_a_packed_ledger_costs_its_block_alone(scan, ledger, tmp_path):
    records, claim = ledger
    for block in range(3):
        records.add(claim, block, files_of(scan, block), flagged=())
    records.pack(claim)
    packed = tmp_path / "model/ledger/blocks.jsonl"
    first, second, third = packed.read_bytes().splitlines(keepends=True)
    packed.write_bytes(first + second.replace(b":", b";", 1) + third)
    assert list(records.read()) == [0, 2]
    assert list(records.damaged()) == ["model/ledger/blocks.jsonl, line 2"]
    records.drop(claim, [])
    assert packed.read_bytes() == first + third


def test_dropping_a_block_leaves_the_others(scan, ledger):
    records, claim = ledger
    for pack in (False, True):
        for block in range(3):
            records.add(claim, block, files_of(scan, block), flagged=())
        if pack:
            records.pack(claim)
        records.drop(claim, [1])
        assert list(records.read()) == [0, 2]
        assert not records.has(1)


@pytest.mark.parametrize(
    "changes",
    [
        {"scan": 78},
        {"block": 3},
        {"block": -1},
        {"files": {}},
        {"files": {"../../etc/passwd": FileMark(1, 1)}},
        {"flagged": (3,)},
        {"flagged": (1, 0)},
        {"flagged": (1, 1)},
        {"flagged": (-1,)},
    ],
)
def test_a_record_of_something_else_does_not_count(scan, ledger, tmp_path, changes):
    records, _ = ledger
    folder = tmp_path / "model/ledger"
    folder.mkdir(parents=True)
    (folder / "1.json").write_bytes(line_of(scan, 1))
    assert list(records.read()) == [1]
    (folder / "1.json").write_bytes(line_of(scan, 1, **changes))
    assert not records.read()
    assert not records.has(1)
    (folder / "blocks.jsonl").write_bytes(line_of(scan, 1, **changes))
    assert not records.read()


def test_a_record_under_the_name_of_another_block_does_not_count(scan, ledger, tmp_path):
    records, _ = ledger
    folder = tmp_path / "model/ledger"
    folder.mkdir(parents=True)
    (folder / "0.json").write_bytes(line_of(scan, 1))
    assert not records.read()
    assert records.damaged() == {"model/ledger/0.json": 0}
