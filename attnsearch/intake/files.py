"""Opening and reading files that anyone may have written: regular ones, and no more than fits.

Everything that goes wrong is an OSError with a message of a few words, or, where the content is no
JSON, a ValueError; whose fault it is and what to do is for the readers to say.
"""

import errno
import json
import os
import stat
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

MAX_DEPTH: Final = 32
"""Brackets within brackets of a JSON file."""


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes; never a pipe, which may hang, or a device, which may not end.

    Raises:
        OSError: there is no such file, it cannot be read, or is of another kind.
    """
    try:
        # Without O_NONBLOCK a pipe is waited for before it can be asked what it is.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except ValueError as error:  # a zero byte in the name, which a file may have put there
        raise OSError(errno.EINVAL, "No name of a file", str(path)) from error
    with ExitStack() as unless_given:
        unless_given.callback(os.close, descriptor)
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        file = os.fdopen(descriptor, "rb")
        unless_given.pop_all()
        return file


def read_regular(path: Path, most: int) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: it cannot be read, or has more than `most` bytes.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {_size(most)}", str(path))
    return data


def read_json(path: Path, most: int = 2**20) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: it cannot be read, or has more than `most` bytes.
        ValueError: it is no JSON, or nested more than `MAX_DEPTH` deep.
    """
    data = read_regular(path, most)
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    except ValueError as error:  # Python's own limit, whose message tells how to lift it
        raise ValueError("an integer has thousands of digits") from error
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError("its brackets are nested too deeply")


def _size(count: int) -> str:
    return f"{count // 2**20} MiB" if count >= 2**20 else f"{count // 2**10} KiB"
