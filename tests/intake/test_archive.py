"""The directory of a zip archive as torch.save writes it, and of all others."""

import io
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.intake import archive
from attnsearch.intake.archive import ArchiveError, read_directory

PAIR = [("m/data.pkl", b"abc"), ("m/data/0", b"defgh")]


def contents(data: bytes) -> dict[str, bytes]:
    return {
        name: data[start : start + size]
        for name, (start, size) in read_directory(io.BytesIO(data)).items()
    }


def refusal(data: bytes) -> str:
    with pytest.raises(ArchiveError) as caught:
        read_directory(io.BytesIO(data))
    assert len(str(caught.value)) < 300
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.pt", "with (blank) 1.pt"])
def test_every_entry_of_a_torch_file_is_where_zip_readers_find_it(name, tmp_path):
    torch.save({"a": torch.ones(3), "b": torch.zeros(2, 3, dtype=torch.half)}, tmp_path / name)
    with zipfile.ZipFile(tmp_path / name) as whole:
        expected = {entry.partition("/")[2]: whole.read(entry) for entry in whole.namelist()}
    assert contents((tmp_path / name).read_bytes()) == expected
    assert {"data.pkl", "data/0", "data/1", "byteorder", "version"} <= expected.keys()


def test_the_archives_of_these_tests_are_archives(make):
    assert contents(make.archive(PAIR)) == {"data.pkl": b"abc", "data/0": b"defgh"}
    assert zipfile.ZipFile(io.BytesIO(make.archive(PAIR))).testzip() is None


def test_sizes_of_64_bits_are_read_where_those_of_32_are_full(make):
    assert contents(make.archive(PAIR, wide=True)) == contents(make.archive(PAIR))


def test_a_compressed_entry_is_refused_however_small(make):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("m/data.pkl", b"abc")
        bomb.writestr("m/data/0", bytes(2**24))
    assert len(file.getvalue()) < 2**15
    assert "compressed" in refusal(file.getvalue())
    assert "compressed" in refusal(make.archive(PAIR, flags=1))


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"size": 4}, "compressed"),
        ({"size": 6, "packed": 6}, "does not lie within the file"),
        ({"size": 2**32 - 2, "packed": 2**32 - 2}, "does not lie within the file"),
        ({"size": 2**60, "packed": 2**60, "wide": True}, "does not lie within the file"),
        ({"place": 2**31}, "outside the file"),
        ({"place": 2**64 - 1, "wide": True}, "outside the file"),
        ({"place": 3}, "not where the directory has it"),
        ({"local_name": "m/data/9"}, "not where the directory has it"),
        ({"extra": b"\1\0\x08\0abc", "size": 2**32 - 1}, "damaged"),
    ],
    ids=str,
)
def test_an_entry_that_lies_about_itself_is_refused(make, lie, reason):
    assert reason in refusal(make.archive(PAIR, **lie))


def test_entries_on_top_of_one_another_are_refused(make):
    """Of which many would be more than the file."""
    place = 30 + len("m/data/0")
    inner = make.archive([("m/data/1", b"xy")])[:place]  # a header within the bytes of an entry
    file = make.archive([("m/data/0", inner + b"12345678"), ("m/data/1", b"xy")], place=place)
    assert "does not lie within the file, or not by itself" in refusal(file)


@pytest.mark.parametrize("second", ["m/data.pkl", "m/DATA.PKL"])
def test_a_name_twice_is_refused_whatever_its_case(make, second):
    assert "twice" in refusal(make.archive([("m/data.pkl", b"1"), (second, b"2")]))


@pytest.mark.parametrize("second", ["other/data/0", "data/0", "../m/data/0", "/m/data/0"])
def test_entries_of_several_folders_are_refused(make, second):
    assert "one folder" in refusal(make.archive([("m/data.pkl", b"1"), (second, b"2")]))


@pytest.mark.parametrize("second", ["m/data/\0", "m/data/\x1b[2J", "m/dät/0"])
def test_names_that_are_not_plain_are_refused(make, second):
    assert "damaged" in refusal(make.archive([("m/data.pkl", b"1"), (second, b"2")]))


def test_bytes_before_or_after_the_archive_are_refused(make):
    whole = make.archive(PAIR)
    refusal(b"junk" + whole)
    refusal(whole + b"junk")
    refusal(make.archive(PAIR, before=b"junk"))
    assert "truncated" in refusal(make.archive(PAIR, comment=b"PK"))
    assert "truncated" in refusal(whole[:-2] + b"\1\0")  # a comment that is not there
    assert "damaged" in refusal(whole[:-22] + b"junk" + whole[-22:])


def test_a_directory_larger_than_any_is_refused_before_it_is_read(make, monkeypatch):
    monkeypatch.setattr(archive, "MAX_DIRECTORY", 100)
    assert "more than 0 MiB" in refusal(make.archive(PAIR))


@given(st.data())
def test_any_damage_is_refused_or_harmless(make, data):
    """What passes lies within the file, and no two entries share a byte."""
    whole = bytearray(make.archive(PAIR, wide=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        entries = sorted(read_directory(io.BytesIO(bytes(whole))).values())
    except ArchiveError:
        return
    assert sum(entry.size for entry in entries) <= len(whole)
    assert all(entry.start + entry.size <= len(whole) for entry in entries)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_archive_are_refused(junk):
    refusal(junk)
    refusal(junk + b"PK\5\6" + junk[:18])
