"""Torch files made by hand, so that each may lie in one place."""

import io
import pickle
import struct
import zlib
from collections import OrderedDict
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch


class Storage(NamedTuple):
    """What a pickle says of a storage."""

    kind: type = torch.FloatStorage
    key: str = "0"
    numbers: int = 4
    location: str = "cpu"


class Tensor:
    """What a pickle says of a tensor, by default of the whole of its storage."""

    def __init__(self, sizes=(4,), strides=(1,), offset=0, storage=None, *, grad=False, rest=()):
        self.parts = (storage or Storage(), offset, sizes, strides, grad, OrderedDict(), *rest)

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.parts


class Call:
    """What is called when the file is loaded."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return ("storage", thing.kind, thing.key, thing.location, thing.numbers)
        return None


def _pickled(content):
    file = io.BytesIO()
    _Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def _archive(
    entries, *, comment=b"", flags=0, method=0, packed=None, size=None, place=None, before=b"",
    local_name=None, wide=False, extra=b"",
):  # fmt: skip
    """A zip archive of entries [(name, bytes)] stored as they are; the lies are all of the last."""
    file = io.BytesIO()
    file.write(before)
    directory = []
    for index, (name, data) in enumerate(entries):
        last = index == len(entries) - 1
        at, crc, encoded = file.tell() - len(before), zlib.crc32(data), name.encode()
        local = (local_name or name).encode() if last else encoded
        sizes = [len(data), len(data), at]
        if last:
            given = (packed, size, place)
            sizes = [old if new is None else new for old, new in zip(sizes, given, strict=True)]
        field = extra if last else b""
        if last and wide:
            field = struct.pack("<HHQQQ", 1, 24, sizes[1], sizes[0], sizes[2])
            sizes = [0xFFFFFFFF] * 3
        kind = (flags, method) if last else (0, 0)
        file.write(
            struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 0, *kind, 0, 0, crc, *sizes[:2], len(local), 0)
        )
        file.write(local + data)
        directory.append(
            struct.pack(
                "<4sHHHHHHIIIHHHHHII", b"PK\1\2", 0, 0, *kind, 0, 0, crc, *sizes[:2],
                len(encoded), len(field), 0, 0, 0, 0, sizes[2],
            )
            + encoded + field
        )  # fmt: skip
    begin, whole = file.tell() - len(before), b"".join(directory)
    count = len(entries)
    file.write(whole)
    file.write(
        struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(whole), begin, len(comment))
    )
    file.write(comment)
    return file.getvalue()


def _torch_file(content=None, *, pickled=None, storages=None, extra=(), **lies):
    """The bytes of a torch file; its last entry is a storage of four numbers called 0."""
    table = _pickled(content) if pickled is None else pickled
    held = {"0": b"\0" * 16} if storages is None else storages
    entries = [
        ("model/data.pkl", table),
        ("model/version", b"3\n"),
        *extra,
        *((f"model/data/{key}", data) for key, data in held.items()),
    ]
    return _archive(entries, **lies)


def maker():
    """See `_torch_file`, `_archive` and the stand-ins."""
    return SimpleNamespace(
        file=_torch_file,
        archive=_archive,
        pickled=_pickled,
        tensor=Tensor,
        storage=Storage,
        call=Call,
    )


@pytest.fixture(scope="session")
def make():
    """See `maker`."""
    return maker()
