"""Whatever fails, everything is let go of: the same process goes on as if nothing had been.

Every call to the system on the way of a scan, its repair included, fails in turn: once, as a disk
that stumbles, or from then on until the user is told, as one that has turned read-only.
"""

import builtins
import errno
import fcntl
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from budget import DEEP
from dask.local import get_sync

from attnsearch.errors import StoreError
from attnsearch.store import Turn, repair, verify
from attnsearch.store import places as where
from attnsearch.store import writer as writing
from attnsearch.store.encoding import BlockCodec, encode_arrays
from attnsearch.store.local import LocalStorage
from attnsearch.store.storage import Holder

# Deep: every error, and places in the code told apart by who called; otherwise one error a place.

NUMBERS = (errno.EIO, errno.EROFS, errno.ENOSPC, errno.EINTR)
CALLS = (
    *("open", "close", "stat", "fstat", "listdir", "scandir", "mkdir", "rmdir", "rename", "unlink"),
    *("fsync", "ftruncate", "pwrite", "pread"),
)
DEPTH = 3 if DEEP else 1
"""How many of its lines tell the places in the code apart."""
OURS = str(Path(where.__file__).parent)
BETWEEN = (__file__, "pathlib.py", "contextlib.py", "<frozen os>", "os.py")
"""Files of functions through which the store calls the system."""

Place = tuple[str, ...]
"""A call and the lines of the store's code that led to it, the innermost first."""


class Faults:
    """Calls to the system that code of the store makes; some of them fail."""

    def __init__(self, at: int | None = None, number: int = 0, *, lasting: bool = False) -> None:
        """The call `at` fails with an error, and, if it is lasting, so do all that follow."""
        self.places: list[Place] = []
        self.fired = False
        self._at, self._number, self._lasting = at, number, lasting
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self._failing(name, getattr(os, name)))
            patch.setattr(fcntl, "flock", self._failing("flock", fcntl.flock))
            for module in (builtins, io):
                patch.setattr(module, "open", self._failing("open file", self._opened(io.open)))
            yield

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "close":
                real(*args)  # Linux closes a descriptor whatever it answers
            self.pass_or_fail(name)
            return None if name == "close" else real(*args, **kwargs)

        return call

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*args: Any, **kwargs: Any) -> Any:
            file = real(*args, **kwargs)
            return File(file, self) if _place("open file") else file

        return opened

    def pass_or_fail(self, name: str) -> None:
        place = _place(name)
        if not place:
            return
        with self._lock:
            number = len(self.places)
            self.places.append(place)
        if self._at is not None and (number == self._at or (self._lasting and number > self._at)):
            self.fired = True
            raise OSError(self._number, os.strerror(self._number))


class File:
    """An open file whose reading, writing and closing may fail."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._faults.pass_or_fail("close file")

    def read(self, *args: Any) -> Any:
        self._faults.pass_or_fail("read file")
        return self._file.read(*args)

    def write(self, data: Any) -> Any:
        self._faults.pass_or_fail("write file")
        return self._file.write(data)


def _place(name: str) -> Place:
    """Where the call comes from; empty where it does not come from the store's code."""
    lines = []
    frame = sys._getframe(2)
    while frame is not None and len(lines) < DEPTH:
        file = frame.f_code.co_filename
        if file.startswith(OURS):
            lines.append(f"{os.path.basename(file)}:{frame.f_lineno}")
        elif not lines and not file.endswith(BETWEEN):
            return ()
        frame = frame.f_back
    return (name, *lines)


Case = tuple[int, int, bool]
"""Which call fails, with what, and whether it lasts."""


def every(places: list[Place]) -> list[Case]:
    """Each call with each error."""
    calls = range(len(places))
    return [
        (at, number, lasting) for at in calls for number in NUMBERS for lasting in (False, True)
    ]


def every_call(places: list[Place]) -> list[Case]:
    """Each call, once and lasting, with the errors in turn."""
    numbers = cycle(NUMBERS)
    return [(at, next(numbers), lasting) for at in range(len(places)) for lasting in (False, True)]


class EveryPlace:
    """One call of each place in the code that was not asked for before."""

    def __init__(self) -> None:
        self._known: set[Place] = set()
        # Of uneven lengths, so that all errors meet both.
        self._numbers, self._lasting = cycle(NUMBERS), cycle((False, True, True, False, True))

    def __call__(self, places: list[Place]) -> list[Case]:
        new = {place: at for at, place in enumerate(places) if place not in self._known}
        self._known.update(new)
        if DEEP:
            return [case for case in every(places) if case[0] in new.values()]
        return [(at, next(self._numbers), next(self._lasting)) for at in new.values()]


def broken_cases(
    folder: Path,
    prepare: Callable[[Path], Callable[[], None]],
    choose: Callable[[list[Place]], list[Case]],
    check: Callable[[Path], None],
    told: type[Exception],
) -> dict[tuple[str, ...], str]:
    """What `check` has against a store, by the case; `prepare` gives what is run in one.

    In each case a call of a run fails, which raises `told` if anything, and another run succeeds.
    """
    folder.mkdir(exist_ok=True)
    watched = Faults()
    run = prepare(folder / "watched")
    with watched():
        run()
    broken = {}
    for at, number, lasting in choose(watched.places):
        case = (*watched.places[at], errno.errorcode[number], "lasting" if lasting else "once")
        store = folder / "-".join(map(str, (at, number, lasting)))
        faults = Faults(at, number, lasting=lasting)
        try:
            run = prepare(store)
            with suppress(told), faults():
                run()
            assert faults.fired
            run()
            check(store)
        except Exception as error:
            broken[case] = repr(error)[:200]
    return broken


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nobody else is there to wait for, and nothing here is about power cuts or encoding."""

    def flock(descriptor, operation, real=fcntl.flock):
        try:
            real(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            assert operation & fcntl.LOCK_NB, "the process waits for itself"
            raise

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(writing, "BlockCodec", cache(BlockCodec))
    encoded = {}

    def encode(layout, coordinates):
        if layout not in encoded:
            encoded[layout] = encode_arrays(layout, coordinates)
        return dict(encoded[layout])

    monkeypatch.setattr(writing, "encode_arrays", encode)


@pytest.fixture(scope="module")
def small(make):
    """The smallest scan of two blocks."""
    one = {"block": 1, "layers": 1, "heads": 1, "steps": 1, "order": 1, "canvas": (1, 1)}
    return make(samples=2, branches=("cond",), regions=(), scores=(), **one)


class Inline:
    """Runs tasks one after the other in this thread."""

    dashboard = ""

    def run(self, tasks, whole, advance):
        return whole.compute(scheduler=get_sync, optimize_graph=False)


def mend(store):
    repair(store, verify(store, runner=Inline()))


def files_of(store):
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


def used(store):
    """All that a place for a store does."""
    storage = LocalStorage(store)

    def run():
        with storage.waited_claim("store") as claim:
            claim.write({"a": b"1", "b/c": b"22"})
        claim = storage.claim("model@1")
        assert not isinstance(claim, Holder), claim
        try:
            claim.write({"b/d": b"333"})
            claim.delete(["a"])
        finally:
            claim.release()
        assert storage.names("") == ["b/c", "b/d"]
        assert storage.folders() == ["b"]
        assert (storage.read("b/c"), storage.size("b/d")) == (b"22", 3)
        assert storage.read_parts("b/c", [(0, 1)]) == [b"2"]
        storage.sweep("model@")
        storage.sweep("store")

    return run


@pytest.fixture
def nothing_left(open_below):
    def check(store):
        assert not (store / ".writing").exists()
        assert open_below(store) == []

    return check


def test_a_folder_is_the_same_after_any_failing_call(tmp_path, nothing_left):
    choose = every if DEEP else every_call
    assert broken_cases(tmp_path, used, choose, nothing_left, OSError) == {}


def test_a_scan_is_the_same_after_any_failing_call(small, tmp_path, nothing_left):
    reference = tmp_path / "reference"
    small.write(reference)

    def check(store):
        mend(store)
        assert files_of(store) == files_of(reference)
        nothing_left(store)

    def written(store):
        """A writer that is there writes what it can."""
        writer = small.open(store)

        def run():
            for block in range(small.layout.blocks):
                if block not in writer.committed():
                    writer.write_block(block, small.block(block))
            writer.release()
            writer.finalise()

        return run

    def scanned(store):
        return lambda: small.write(store)

    def repaired(store):
        """A damaged block is dropped from a scan that is not complete, which is then finished."""
        small.write(store, blocks=1)
        (store / "model" / small.layout.arrays()[0].file(0)).write_bytes(b"damaged")

        def run():
            mend(store)
            small.write(store)

        return run

    choose = EveryPlace()
    found = {
        prepare.__name__: broken_cases(
            tmp_path / prepare.__name__, prepare, choose, check, StoreError
        )
        for prepare in (written, scanned, repaired)
    }
    assert found == {"written": {}, "scanned": {}, "repaired": {}}


def test_a_lock_file_that_cannot_be_removed_is_nobodys(tmp_path, monkeypatch, nothing_left):
    storage = LocalStorage(tmp_path / "store")
    claim = storage.claim("model@1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", _refused)
        with pytest.raises(OSError, match="Read-only file system"):
            claim.release()
    again = storage.claim("model@1")
    assert not isinstance(again, Holder)
    again.release()
    nothing_left(storage.root)


def test_a_block_is_written_though_its_claim_cannot_be_removed(
    small, tmp_path, monkeypatch, nothing_left
):
    with small.open(tmp_path / "store") as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", _refused)
            writer.write_block(1, small.block(1))
        assert writer.committed() == {1}
        assert (tmp_path / "store" / ".writing" / "model@1.lock").exists()
    nothing_left(tmp_path / "store")


def test_what_went_wrong_first_is_told(small, tmp_path, monkeypatch):
    writer = small.open(tmp_path / "store")
    assert writer.claim(0) is Turn.OURS
    monkeypatch.setattr(os, "unlink", _refused)
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt


def test_files_beside_a_lock_that_is_gone_are_swept(tmp_path, nothing_left):
    storage = LocalStorage(tmp_path / "store")
    (tmp_path / "store" / ".writing").mkdir(parents=True)
    (tmp_path / "store" / ".writing" / "v1.5@1.0").write_bytes(b"")
    storage.sweep("v1.5@")
    nothing_left(storage.root)


def _refused(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
