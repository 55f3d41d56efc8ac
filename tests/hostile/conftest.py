"""The law of bad input, and how files are spoilt."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from attnsearch.cli import app
from attnsearch.intake.values import LONGEST

VALUES = (
    None, True, False, 0, 1, -1, 3, 10**4, 10**6, 10**9, 2**31, 2**63 - 1, -(2**63),
    0.5, -1.5, 1e308, math.nan, math.inf, -math.inf,
    "", "a", "\x1b[2J\x07", "\n\r\n", "\ud800", "\u202e", "[/red]", "x" * 50_000, "../../etc",
    "/dev/zero", [], {}, [1, 2], {"a": 1}, [[[[[[]]]]]], {"weight": {"weight": []}},
)  # fmt: skip
"""What may stand where something else is expected."""

TENSORS = (
    torch.zeros(0), torch.tensor(1.0), torch.ones(3), torch.full((2, 2), math.nan),
    torch.ones(2, 2, dtype=torch.int64), torch.ones(2, dtype=torch.complex64), b"bytes",
    torch.ones(32, 32).half(), torch.ones(5, dtype=torch.bool), (1, 2), torch.float16,
)  # fmt: skip


def _state_of(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def _lawful(folder: Path, *words: object) -> Result:
    """Run a command on the files of a folder, and hold it to the law.

    It ends with 0, or with 2, one line of bounded length and nothing written; never in any other
    way.
    """
    before = _state_of(folder)
    result = CliRunner().invoke(app, [str(word) for word in words])
    told = (words, result.output[-2000:], result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), told
    assert result.exit_code in (0, 2), told
    if result.exit_code == 2:
        (line,) = result.stderr.splitlines()
        assert line.startswith("attnsearch: "), told
        assert line.isprintable(), told
        assert len(line) < LONGEST + 20, told
        assert _state_of(folder) == before, told
    return result


@pytest.fixture(scope="session")
def lawful():
    """See `_lawful`."""
    return _lawful


@pytest.fixture(scope="session")
def refused():
    """The one line of a command that is refused, lawfully."""

    def line_of(folder: Path, *words: object) -> str:
        result = _lawful(folder, *words)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        return result.stderr.strip()

    return line_of


@pytest.fixture
def place(tmp_path):
    """A folder with nothing else in it."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes, places: tuple[tuple[int, int], ...] = ()) -> bytes:
    """Some bytes with a few changes, in one of some ranges for preference."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        first, last = draw(st.sampled_from([(0, len(data)), *places]))
        at = min(draw(st.integers(first, max(first, last - 1))), len(data))
        count = draw(st.sampled_from([1, 1, 2, 8, 100]))
        piece = draw(st.binary(min_size=1, max_size=4))
        match draw(st.sampled_from(["flip", "write", "insert", "delete", "double", "cut"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "write":
                data[at : at + len(piece)] = piece
            case "insert":
                data[at:at] = piece
            case "delete":
                del data[at : at + count]
            case "double":
                data[at:at] = data[at : at + count]
            case "cut":
                del data[at:]
    return bytes(data)


@pytest.fixture(scope="session")
def damaged():
    """See `_damaged`."""
    return _damaged


def _paths(value: object, path: tuple = ()) -> list[tuple[tuple, object]]:
    """Every value within a value, and where it is."""
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list | tuple):
        inner = enumerate(value)
    return [(path, value), *(found for key, each in inner for found in _paths(each, (*path, key)))]


def _changed(value: object, path: tuple, new: object) -> object:
    """The same value but for what is at a path; `...` takes it away."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        changed = {**value, key: _changed(value.get(key), tuple(rest), new)}
        return {k: v for k, v in changed.items() if v is not ...}
    changed = [_changed(v, tuple(rest), new) if k == key else v for k, v in enumerate(value)]
    return [each for each in changed if each is not ...]


@st.composite
def _spoilt(draw: st.DrawFn, content: object, *, tensors: bool = False) -> object:
    """A structure in which a value or two are others, are missing, or are one too many."""
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        new = draw(st.sampled_from([..., *VALUES, *(TENSORS if tensors else ())]))
        found = _paths(content)
        tables = [path for path, value in found if isinstance(value, dict)]
        if tables and draw(st.integers(0, 9)) == 0:
            path = (*draw(st.sampled_from(tables)), draw(st.sampled_from(["new", "", "\x1b", 3])))
        else:
            path, _ = draw(st.sampled_from(found))
        spoilt = _changed(content, path, new)
        content = None if spoilt is ... else spoilt
    return content


@pytest.fixture(scope="session")
def spoilt():
    """See `_spoilt`."""
    return _spoilt


def _conftest_of(package: str):
    """What the tests of another package make their files with."""
    path = Path(__file__).parents[1] / package / "conftest.py"
    spec = importlib.util.spec_from_file_location(f"making_of_{package}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_pipelines():
    """The tiny pipelines that scans are tested with."""
    return _conftest_of("scanning")


@pytest.fixture(scope="session")
def pixart_weights():
    """Weights in the original format of PixArt, as tests of models make them."""
    return _conftest_of("models")._original


@pytest.fixture(scope="session")
def forged():
    """Torch files made by hand, as tests of the intake make them."""
    return _conftest_of("intake").maker()
