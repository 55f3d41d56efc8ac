"""As `test_letting_go`, of object stores: a server that stumbles, and answers that are lost.

What was asked for may have been done or not; either way the same process goes on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from threading import Lock
from typing import Any

import pytest
from budget import DEEP

from attnsearch.errors import StoreError
from attnsearch.store import places as where
from attnsearch.store.objects import ObjectStorage
from attnsearch.store.storage import Holder

obstore = pytest.importorskip("obstore")
stores = pytest.importorskip("obstore.store")
exceptions = pytest.importorskip("obstore.exceptions")

# Deep: every call of a scan in every way; otherwise those about claims, in one.

CALLS = ("put", "get", "get_ranges", "head", "delete", "list", "list_with_delimiter")


class Faults:
    """Calls to the server; some of them fail."""

    def __init__(self, at: int | None = None, *, done: bool = False, lasting: bool = False) -> None:
        """The call `at` fails, `done` or not; if it is lasting, so do all that follow."""
        self.calls: list[tuple[str, str]] = []
        """Each with the name it is about."""
        self.fired = False
        self._at, self._done, self._lasting = at, done, lasting
        self._lock = Lock()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(obstore, name, self._failing(name, getattr(obstore, name)))
            yield

    def _failing(self, name: str, real: Any) -> Any:
        def call(store: Any, *args: Any, **kwargs: Any) -> Any:
            with self._lock:
                number = len(self.calls)
                self.calls.append((name, str(args[0]) if args else ""))
            fails = number == self._at or (
                self._lasting and self._at is not None and number > self._at
            )
            if fails and not self._done:
                self._fail()
            try:
                return real(store, *args, **kwargs)
            finally:
                if fails:  # whatever the server answered, it is lost
                    self._fail()

        return call

    def _fail(self) -> None:
        self.fired = True
        raise exceptions.GenericError("the server stumbles")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nobody else is there to wait for."""

    def sleep(_):
        pytest.fail("the process waits for itself")

    monkeypatch.setattr("attnsearch.store.objects.sleep", sleep)


def broken_cases(make, run, cases, check, told):
    """What `check` has against a store, by the case; in each, a call of a first run fails."""
    broken = {}
    for at, done, lasting in cases:
        faults = Faults(at, done=done, lasting=lasting)
        try:
            storage = make()
            with suppress(told), faults():
                run(storage)
            assert faults.fired
            run(storage)
            check(storage)
        except Exception as error:
            broken[at, done, lasting] = repr(error)[:200]
    return broken


def used(storage):
    """All that is done with claims."""
    with storage.waited_claim("store") as claim:
        claim.write({"a": b"1", "b/c": b"22"})
    claim = storage.claim("model@1")
    assert not isinstance(claim, Holder), claim
    try:
        claim.write({"b/d": b"333"})
        claim.delete(["a"])
    finally:
        claim.release()
    storage.sweep("model@")
    storage.sweep("store")


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_claims_are_free_after_any_failing_call(tmp_path, kind):
    numbers = iter(range(10_000))

    def make():
        if kind == "memory":
            return ObjectStorage(stores.MemoryStore(), "memory://store")
        folder = tmp_path / str(next(numbers))
        return ObjectStorage(stores.LocalStore(folder, mkdir=True), "file://store")

    def check(storage):
        assert storage.names("") == ["b/c", "b/d"]
        assert not list(obstore.list(storage._store, prefix=".writing").collect())

    watched = Faults()
    with watched():
        used(make())
    cases = [
        (at, done, lasting)
        for at in range(len(watched.calls))
        for done in (False, True)
        for lasting in (False, True)
    ]
    assert cases
    assert broken_cases(make, used, cases, check, OSError) == {}


def test_a_scan_is_the_same_after_any_failing_call(make, monkeypatch):
    one = {"block": 1, "layers": 1, "heads": 1, "steps": 1, "order": 1, "canvas": (1, 1)}
    scan = make(samples=2, branches=("cond",), regions=(), scores=(), **one)

    def storage():
        made = ObjectStorage(stores.MemoryStore(), "memory://store")
        monkeypatch.setattr(where, "object_storage", lambda _: made)
        return made

    def run(_):
        scan.write("memory://store")

    def contents(storage):
        return {name: storage.read(name) for name in storage.names("")}

    def check(storage):
        assert contents(storage) == reference
        assert not list(obstore.list(storage._store, prefix=".writing").collect())

    watched = Faults()
    whole = storage()
    with watched():
        run(whole)
    reference = contents(whole)
    ways = [(done, lasting) for done in (False, True) for lasting in (False, True)]
    if DEEP:
        cases = [(at, *way) for at in range(len(watched.calls)) for way in ways]
    else:
        about = [at for at, (_, name) in enumerate(watched.calls) if name.endswith(".lock")]
        cases = [(at, *way) for at, way in zip(about, cycle(ways), strict=False)]
    assert cases
    assert broken_cases(storage, run, cases, check, StoreError) == {}


def test_who_is_told_of_a_claim_that_is_left(monkeypatch):
    """Other processes cannot know; this one takes it over, but never one it still has."""
    storage = ObjectStorage(stores.MemoryStore(), "memory://store")
    claim = storage.claim("model@1")
    assert isinstance(storage.claim("model@1"), Holder)
    faults = Faults(at=0)
    with pytest.raises(OSError, match="stumbles"), faults():
        claim.release()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        assert isinstance(storage.claim("model@1"), Holder)
    again = storage.claim("model@1")
    assert not isinstance(again, Holder)
    assert isinstance(storage.claim("model@1"), Holder)
    again.release()
