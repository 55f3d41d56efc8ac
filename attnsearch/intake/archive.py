"""Where the entries of a torch file lie: the directory of a zip archive as `torch.save` writes it.

Far less than zip allows: nothing compressed, encrypted, twice there, overlapping, before the first
entry or after the directory. So there is one way to read the directory, torch's reader and this one
agree, and what the entries hold together is no more than the file. What they hold is the business
of `claims`.
"""

from collections.abc import Iterator
from struct import Struct, error, unpack_from
from typing import BinaryIO, Final, NamedTuple

MAX_DIRECTORY: Final = 4 * 2**20
"""Bytes; an entry has about a hundred, and a model of 1000 tensors as many entries."""

START: Final = b"PK\x03\x04"
"""How such a file begins."""

_END: Final = Struct("<4sHHHHIIH")
_LOCATOR: Final = Struct("<4sIQI")
_END_64: Final = Struct("<4sQHHIIQQQQ")
_ENTRY: Final = Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL: Final = Struct("<4sHHHHHIIIHH")
_ENCRYPTED: Final = 1
_STORED: Final = 0
_IN_EXTRA: Final = 0xFFFFFFFF
_EXTRA_64: Final = 1


class ArchiveError(ValueError):
    """A file is no such archive; the message says what is wrong with it."""


class Entry(NamedTuple):
    """The bytes of one entry in the file."""

    start: int
    size: int


def read_directory(file: BinaryIO) -> dict[str, Entry]:
    """The entries of an archive by name, without the folder that all names begin with.

    Raises:
        ArchiveError: the file is no archive, is cut off, or is not as `torch.save` writes it.
    """
    try:
        begin, size = _find_directory(file)
        file.seek(begin)
        listed = list(_entries(file.read(size)))
        if any(place > begin for _, place, _ in listed):
            raise ArchiveError("an entry lies outside the file")
        entries = {name: _locate(file, name, place, length) for name, place, length in listed}
    except (error, UnicodeDecodeError) as cause:  # the bytes end before their header does
        raise ArchiveError("its directory is damaged") from cause
    if len({name.lower() for name, *_ in listed}) < len(listed):  # torch minds no letter case
        raise ArchiveError("an entry is twice there")
    free = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]):
        if entry.start < free or entry.start + entry.size > begin:
            raise ArchiveError(f"entry {name} does not lie within the file, or not by itself")
        free = entry.start + entry.size
    folders = {name.partition("/")[0] for name in entries}
    if len(folders) != 1:
        raise ArchiveError("its entries are not all of one folder")
    return {name.partition("/")[2]: entry for name, entry in entries.items()}


def _find_directory(file: BinaryIO) -> tuple[int, int]:
    """Where the directory begins, and its bytes; it ends where its end record begins."""
    if file.seek(0, 2) < _END.size:
        raise ArchiveError("it is truncated")
    end = file.seek(-_END.size, 2)
    signature, *_, size, begin, comment = _END.unpack(file.read(_END.size))
    if signature != b"PK\x05\x06" or comment:
        raise ArchiveError("it is truncated")
    locator = end - _LOCATOR.size
    if locator >= _END_64.size:
        file.seek(locator - _END_64.size)
        larger, pointer = _END_64.unpack(file.read(_END_64.size)), file.read(_LOCATOR.size)
        if pointer.startswith(b"PK\x06\x07"):
            end = locator - _END_64.size
            *_, size, begin = larger
            if larger[0] != b"PK\x06\x06" or _LOCATOR.unpack(pointer)[2] != end:
                raise ArchiveError("its directory is damaged")
    if begin + size != end:
        raise ArchiveError("its directory is damaged")
    if size > MAX_DIRECTORY:
        raise ArchiveError(f"its directory has more than {MAX_DIRECTORY // 2**20} MiB")
    return begin, size


def _entries(directory: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, place of the local header, and bytes of every entry."""
    at = 0
    while at < len(directory):
        (
            signature, _, _, flags, method, _, _, _, packed, size,
            name_length, extra_length, comment_length, _, _, _, place,
        ) = _ENTRY.unpack_from(directory, at)  # fmt: skip
        at += _ENTRY.size
        name = directory[at : at + name_length].decode("ascii")
        extra = directory[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        size, packed, place = _widened(extra, size, packed, place)
        if signature != b"PK\x01\x02" or not name.isprintable():
            raise ArchiveError("its directory is damaged")
        if method != _STORED or flags & _ENCRYPTED or packed != size:
            raise ArchiveError(f"entry {name} is compressed, which torch.save never does")
        yield name, place, size
    if at != len(directory):
        raise ArchiveError("its directory is damaged")


def _widened(extra: bytes, *numbers: int) -> Iterator[int]:
    """Numbers of 32 bits, those that did not fit replaced by what the extra field says."""
    wide = b""
    while len(extra) >= 4:
        kind, length = unpack_from("<HH", extra)
        wide = extra[4 : 4 + length] if kind == _EXTRA_64 else wide
        extra = extra[4 + length :]
    for number in numbers:
        if number == _IN_EXTRA:
            (number,) = unpack_from("<Q", wide)
            wide = wide[8:]
        yield number


def _locate(file: BinaryIO, name: str, place: int, size: int) -> Entry:
    """The bytes of an entry, which follow its local header."""
    file.seek(place)
    signature, *_, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
    if signature != START or file.read(name_length) != name.encode():
        raise ArchiveError(f"entry {name} is not where the directory has it")
    return Entry(place + _LOCAL.size + name_length + extra_length, size)
