"""Scans as a whole: make a store for them, remove one, give one another name.

What a scan holds never tells its name: that is its folder's alone. So a scan is renamed by renaming
its folder, and what remains to be done is to bring the list of scans in the root up to date, for
those who read the store with nothing of ours. The list never has what is not there: it loses a scan
before the folder goes, and gets it after the folder has come.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from attnsearch.errors import StoreError
from attnsearch.store.creation import names_of_scan
from attnsearch.store.groups import check_name, disk_errors, ensure_root, scan_folders, write_root
from attnsearch.store.ledger import FIXED
from attnsearch.store.places import Place, existing_storage, storage_at
from attnsearch.store.storage import PART, Claim, Holder, Storage
from attnsearch.store.writer import ROOT_CLAIM, change_claim


def make_store(path: Place) -> None:
    """Make a store without scans, unless there is one.

    Raises:
        StoreError: something else is there, or the disk refuses.
    """
    storage = storage_at(path)
    with disk_errors("write", path), storage.waited_claim(ROOT_CLAIM) as claim:
        ensure_root(storage)
        write_root(storage, claim)


def remove(path: Place, scan: str) -> None:
    """Remove a scan from a store, or what was left of one.

    Raises:
        StoreError: there is no such scan, its folder holds what is none of a scan's, a process is
            writing it, or the disk refuses.
    """
    storage = existing_storage(path)
    with disk_errors("write", path), _changing(storage, scan) as claim:
        order = _order(storage, scan)
        write_root(storage, claim, without=[scan])
        claim.remove(scan, order)


def rename(path: Place, scan: str, to: str) -> None:
    """Give a scan of a store another name.

    The beginning of a copy of the scan gives way to it: a renaming leaves one that was killed in an
    object store.

    Raises:
        StoreError: there is no such scan, its folder holds what is none of a scan's, the name is
            taken or cannot be one, a process is writing the scan, or the disk refuses.
    """
    check_name(to)
    if scan == to:
        raise StoreError(f"scan {scan} of {path} is called so already")
    storage = existing_storage(path)
    with disk_errors("write", path), _changing(storage, scan) as claim, _unwritten(storage, to):
        order = _order(storage, scan)
        in_the_way = to in storage.folders()
        if in_the_way:
            _check_is_beginning(storage, to, scan)
        write_root(storage, claim, without=[scan, to])
        if in_the_way:
            claim.remove(to, _order(storage, to))
        claim.rename(scan, to, order)
        write_root(storage, claim)


@contextmanager
def _changing(storage: Storage, scan: str) -> Iterator[Claim]:
    """The claim on the store, while nobody writes a scan that is there, nor else changes it."""
    check_name(scan)
    with storage.waited_claim(ROOT_CLAIM) as claim:
        ensure_root(storage)
        if scan not in storage.folders():
            scans = scan_folders(storage)
            held = f"it holds {', '.join(scans)}" if scans else "it holds none"
            raise StoreError(f"{storage} holds no scan called {scan!r}; {held}")
        with _unwritten(storage, scan):
            yield claim


@contextmanager
def _unwritten(storage: Storage, scan: str) -> Iterator[None]:
    """Makes sure that nobody writes a scan meanwhile, and nobody else changes it."""
    ours = change_claim(scan)
    change = storage.claim(ours)
    if isinstance(change, Holder):
        raise StoreError(f"scan {scan} of {storage} is being changed by {change}; try later")
    try:
        for name in storage.claims(f"{scan}{PART}"):
            if name != ours and (writer := _holder(storage, name)) is not None:
                raise StoreError(
                    f"scan {scan} of {storage} is being written by {writer}; "
                    "wait until it has ended, or stop it"
                )
        yield
    finally:
        change.release()


def _holder(storage: Storage, name: str) -> Holder | None:
    """Who holds a claim; one of the dead is cleared away."""
    claim = storage.claim(name)
    if isinstance(claim, Holder):
        return claim
    claim.release()
    return None


def _check_is_beginning(storage: Storage, there: str, scan: str) -> None:
    """Refuse to replace what holds anything that a scan does not."""
    theirs, ours = _lines(storage, there), _lines(storage, scan)
    if ours <= theirs:
        raise StoreError(
            f"{storage} holds a copy of scan {scan} called {there} already; "
            f"`attnsearch store remove {storage} {scan}` leaves only that"
        )
    if not theirs < ours:
        raise StoreError(f"{storage} holds another scan called {there}; choose another name")


def _lines(storage: Storage, scan: str) -> set[bytes]:
    """The records of a scan, in whatever files they are."""
    files = map(storage.read, storage.names(f"{scan}/ledger"))
    return {line for data in files for line in (data or b"").splitlines()}


def _order(storage: Storage, scan: str) -> list[list[str]]:
    """The files of a scan in the order that leaves, cut off anywhere, a scan or none.

    There is a scan from its fixed record on, and of its blocks those that have a record.
    """
    fixed = f"{scan}/{FIXED}"
    names = [name for name in names_of_scan(storage, scan) if name != fixed]
    records = [name for name in names if name.startswith(f"{scan}/ledger/")]
    return [[name for name in names if name not in set(records)], [fixed], records]
