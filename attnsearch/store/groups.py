"""The groups of a store on disk: their metadata files, their names, their consolidation.

Zarr writes the metadata of arrays; that of the groups is written here, so that every byte is
determined by the content and every file is replaced atomically and durably. Data arrays and the
ledger are the business of `writer` and `reader`.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from attnsearch.errors import StoreError
from attnsearch.store.schema import SCHEMA_ATTRIBUTE, SCHEMA_VERSION

METADATA_NAME: Final = "zarr.json"
UNFINISHED: Final = ".partial"
"""Suffix of whatever a killed writer may leave behind; zarr uses the same one."""


@contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into one line that says what could not be done."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot {action} {path}: {reason}") from error


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes) -> None:
    """Give the file at `path` these bytes, durably and at once."""
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_bytes(data)
    sync(unfinished)
    unfinished.replace(path)
    sync(path.parent)


def check_name(name: str) -> None:
    """Refuse a scan name that cannot be a folder of the store.

    Raises:
        StoreError: the name is empty, has odd characters, or is one the store needs itself.
    """
    plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    if not plain or name == METADATA_NAME or name.endswith(UNFINISHED):
        raise StoreError(
            f"{name!r} cannot be the name of a scan; use letters, digits, '-', '_' and '.'"
        )


def read_group(path: Path) -> dict[str, Any]:
    """The metadata of the group in the folder `path`.

    Raises:
        StoreError: it is not an attnsearch group, or another version of attnsearch wrote it.
    """
    if not path.exists():
        raise StoreError(f"{path} does not exist")
    file = path / METADATA_NAME
    with disk_errors("read", file):
        data = file.read_bytes() if file.is_file() else b""
    try:
        metadata: dict[str, Any] = json.loads(data)
        version = metadata["attributes"][SCHEMA_ATTRIBUTE]
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, int):
        raise StoreError(f"{path} is not an attnsearch store")
    if version != SCHEMA_VERSION:
        age = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StoreError(
            f"{path} was written by {age} attnsearch "
            f"(schema {version}, this one reads {SCHEMA_VERSION})"
        )
    return metadata


def write_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """Write the metadata of a group without members, or replace it if it differs."""
    _write(path, {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"})


def child_groups(store: Path) -> list[str]:
    """Names of the scans in a store, sorted."""
    return [
        path.name
        for path in _members(store)
        if json.loads((path / METADATA_NAME).read_bytes())["node_type"] == "group"
    ]


def consolidate(path: Path) -> None:
    """Copy the metadata of all members into that of the group at `path`.

    Child groups must be consolidated themselves. The form is zarr's inline consolidated metadata,
    which is what lets a whole store open without listing a folder. Writes nothing when nothing
    changed, so it may be repeated at will.
    """
    members: dict[str, Any] = {}
    for child in _members(path):
        metadata = json.loads((child / METADATA_NAME).read_bytes())
        nested = metadata.get("consolidated_metadata", {}).get("metadata", {})
        if metadata["node_type"] == "group":
            metadata["consolidated_metadata"] = _inline({})
        members[child.name] = metadata
        members |= {f"{child.name}/{name}": value for name, value in nested.items()}
    group = json.loads((path / METADATA_NAME).read_bytes())
    _write(path, {**group, "consolidated_metadata": _inline(members)})


def _inline(members: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": dict(members)}


def _members(path: Path) -> list[Path]:
    return sorted(
        child
        for child in path.iterdir()
        if (child / METADATA_NAME).is_file() and not child.name.endswith(UNFINISHED)
    )


def _write(path: Path, metadata: Mapping[str, Any]) -> None:
    file = path / METADATA_NAME
    data = json.dumps(metadata, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"
    if not file.exists() or file.read_bytes() != data:
        replace(file, data)
