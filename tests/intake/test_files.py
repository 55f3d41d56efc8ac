"""Opening and reading what lies at a path."""

import json
import os
from pathlib import Path

import pytest

from attnsearch.intake import open_regular, read_json, read_regular

needs_modes = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than") as caught:
        read_regular(path, 4)
    assert caught.value.filename == str(path)


def test_a_link_to_a_file_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 9) == b"1"


def make_pipe(path):
    os.mkfifo(path)


def make_zeros(path):
    path.symlink_to("/dev/zero")


def make_dangling(path):
    path.symlink_to(path.with_name("nowhere"))


def make_loop(path):
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_pipe, OSError),
        (make_zeros, OSError),
        (make_dangling, FileNotFoundError),
        (make_loop, OSError),
        (Path.mkdir, IsADirectoryError),
        (lambda path: None, FileNotFoundError),
    ],
)
def test_what_is_no_regular_file_is_refused_and_never_waited_for(make, kind, tmp_path):
    path = tmp_path / "thing"
    make(path)
    opened = len(os.listdir("/dev/fd"))
    with pytest.raises(kind) as caught:
        open_regular(path)
    assert caught.value.strerror
    assert len(os.listdir("/dev/fd")) == opened


def test_a_name_with_a_zero_byte_is_refused():
    with pytest.raises(OSError, match="No name of a file"):
        open_regular(Path("a\0b"))


@needs_modes
def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "file"
    path.touch(mode=0)
    with pytest.raises(PermissionError):
        open_regular(path)


@pytest.mark.parametrize("value", [None, 3, "é", [[[]]], {"a": {"b": [1.5, True]}}])
def test_json_is_read(value, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    assert read_json(path) == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1 is not JSON"),
        (b'{"a": 1,\n"b"}', "line 2 is not JSON"),
        (b"\xff\xfe", "byte 1 is not UTF-8"),
        (b"[" * 40 + b"]" * 40, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested too deeply"),
        (b"9" * 5000, "thousands of digits"),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_no_json_says_why_in_a_few_words(content, reason, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_json(path)
    assert len(str(caught.value)) < 100


def test_json_of_any_size_is_not_read(tmp_path):
    path = tmp_path / "file.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="larger than 1 MiB"):
        read_json(path)
