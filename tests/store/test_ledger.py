"""The ledger vouches for a prefix of blocks, whatever happened to its tail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.store.ledger import Ledger, Record, parse

RECORDS = [Record(block=i, files={"sketch/c.é": (i, 7), "peak/c": (2**40, i)}) for i in range(3)]
LINES = [record.line() for record in RECORDS]
WHOLE = b"".join(LINES)


def test_records_come_back_as_they_were():
    assert parse(WHOLE) == (RECORDS, len(WHOLE))


def test_a_tail_torn_at_any_byte_leaves_the_longest_whole_prefix():
    ends = [sum(map(len, LINES[:count])) for count in range(len(LINES) + 1)]
    for cut in range(len(WHOLE) + 1):
        whole = max(count for count, end in enumerate(ends) if end <= cut)
        assert parse(WHOLE[:cut]) == (RECORDS[:whole], ends[whole])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_ends_the_prefix_before_its_line(position, flip):
    data = bytearray(WHOLE)
    data[position] ^= flip
    damaged = WHOLE[:position].count(b"\n")
    assert parse(bytes(data))[0] == RECORDS[:damaged]


@pytest.mark.parametrize("order", [(0, 2), (1,), (0, 0), (0, 1, 1)])
def test_a_record_out_of_turn_ends_the_prefix(order):
    blocks = [record.block for record in parse(b"".join(LINES[i] for i in order))[0]]
    assert blocks == list(range(len(blocks)))
    assert len(blocks) < len(order)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"block":0,"files":[]}\n',
        b'{"block":0,"files":{"a":[1e999,0]}}\n',  # a number that Python reads as infinity
        b"[" * 100_000 + b"\n",
        b"\xff\n",
    ],
)
def test_what_is_no_record_is_not_taken_for_one(line):
    assert parse(line + WHOLE) == ([], 0)


def test_appending_overwrites_a_torn_tail(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(LINES[0] + WHOLE[5:])
    ledger = Ledger.load(path)
    ledger.append(RECORDS[1])
    assert path.read_bytes() == LINES[0] + LINES[1]
    path.write_bytes(LINES[0] + b"{")
    Ledger.load(path).trim()
    assert path.read_bytes() == LINES[0]


def test_a_missing_or_short_file_is_named(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(Record(block=0, files={"data": (3, 0)}).line())
    ledger = Ledger.load(path)
    assert "data is missing" in str(ledger.first_damage())
    (tmp_path / "data").write_bytes(b"12")
    assert "2 bytes, not 3" in str(ledger.first_damage())
    (tmp_path / "data").write_bytes(b"123")
    assert ledger.first_damage() is None
