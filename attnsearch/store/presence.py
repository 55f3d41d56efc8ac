"""Whether a scan that was opened is still where it was, and what to say if it is not.

A store may be moved, removed or replaced while somebody reads or writes it. That is no damage, and
nothing is to be written where it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from attnsearch.errors import StoreError
from attnsearch.store.groups import METADATA_NAME, damaged
from attnsearch.store.ledger import FIXED, parse_fixed
from attnsearch.store.storage import Storage


def check_there(storage: Storage, scan: str, fingerprint: int) -> None:
    """Refuse to go on with a scan that is no longer there; `fingerprint` is of its fixed record.

    Raises:
        StoreError: the store or the scan is gone, or another scan is in its place.
        OSError: the place cannot be read.
    """
    line = storage.read(f"{scan}/{FIXED}")
    if line is None:
        if storage.names(f"{scan}/ledger"):
            raise damaged(storage, f"{scan}/{FIXED}", "is missing")
        if storage.size(METADATA_NAME) is None:
            raise store_is_gone(storage)
        raise _scan_is_gone(storage, scan)
    record = parse_fixed(line)
    # One that is damaged says nothing of the blocks; `verify` finds it.
    if record is not None and record.fingerprint != fingerprint:
        raise _scan_is_gone(storage, scan)


@contextmanager
def gone_first(storage: Storage, scan: str, fingerprint: int) -> Iterator[None]:
    """Of what the disk refuses because the scan is no longer there, say that."""
    try:
        yield
    except OSError:
        check_there(storage, scan, fingerprint)
        raise


def store_is_gone(storage: Storage) -> StoreError:
    """The error that says that a store is no longer where it was."""
    return StoreError(
        f"{storage} is gone: it was moved or removed after it was opened; "
        "give the place where it is now"
    )


def _scan_is_gone(storage: Storage, scan: str) -> StoreError:
    return StoreError(
        f"scan {scan} of {storage} is gone: it was removed, renamed or replaced after it was opened"
    )
