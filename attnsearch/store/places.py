"""Where a store lies: a folder, or a URL of an object store."""

from pathlib import Path
from typing import TypeAlias

from attnsearch.errors import StoreError
from attnsearch.store.groups import disk_errors
from attnsearch.store.local import LocalStorage
from attnsearch.store.objects import object_storage
from attnsearch.store.storage import Storage

Place: TypeAlias = Path | str
"""A folder, or a URL such as `s3://bucket/prefix`."""


def storage_at(place: Place) -> Storage:
    """The storage of a store that is there or is to be made.

    Raises:
        StoreError: it cannot be: a file or a dangling link has the name, the folder it is to be in
            does not exist, the disk does not answer, or no object store is reached by the URL.
    """
    if isinstance(place, str) and "://" in place:
        return object_storage(place)
    folder = Path(place)
    with disk_errors("reach", folder):
        _check_link(folder)
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder} is a file, not an attnsearch store")
        if not folder.parent.is_dir():
            raise StoreError(f"cannot write {folder}: there is no folder {folder.parent}")
        return LocalStorage(folder)


def existing_storage(place: Place) -> Storage:
    """The storage of a store that is there.

    Raises:
        StoreError: there is nothing, no folder, or a dangling link, or the disk does not answer.
    """
    if isinstance(place, str) and "://" in place:
        return object_storage(place)
    folder = Path(place)
    with disk_errors("reach", folder):
        _check_link(folder)
        if not folder.exists():
            raise StoreError(f"{folder} does not exist")
        if not folder.is_dir():
            raise StoreError(f"{folder} is not an attnsearch store")
        return LocalStorage(folder)


def _check_link(folder: Path) -> None:
    """Refuse a link that leads nowhere."""
    if folder.is_symlink() and not folder.exists():
        raise StoreError(
            f"{folder} is a link to {folder.readlink()}, which does not exist; "
            "remove the link, or name another store"
        )
