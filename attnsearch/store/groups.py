"""The groups of a store: their metadata files, their names, their consolidation.

A group's metadata repeats that of its members (Zarr's inline consolidated metadata), which is
what lets a whole store open without listing a folder. It is written here and not by Zarr, so that
every byte is determined by the content.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from attnsearch.errors import StoreError
from attnsearch.lookup import check_scan_name
from attnsearch.store.schema import SCHEMA_ATTRIBUTE, SCHEMA_VERSION
from attnsearch.store.storage import Claim, Storage

METADATA_NAME: Final = "zarr.json"
_LONGEST_METADATA: Final = 2**28
"""Bytes; a store of a hundred scans has about 2^20."""


@contextmanager
def disk_errors(action: str, where: object) -> Iterator[None]:
    """Turn an OSError into one line that says what could not be done."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot {action} {where}: {reason}") from error


def check_name(name: str) -> None:
    """Refuse a scan name that cannot be a folder of the store.

    Raises:
        StoreError: the name is empty, long, has odd characters, or is one the store needs itself.
    """
    check_scan_name(name)
    if name == METADATA_NAME:
        raise StoreError(f"{name} cannot be the name of a scan; the store's own metadata have it")


def read_root(storage: Storage) -> dict[str, Any]:
    """The attributes of a store's root.

    Raises:
        StoreError: it is no store, its metadata is damaged, or another version wrote it.
    """
    try:
        return _attributes(storage, "")
    except _NotOursError as error:
        if scan_folders(storage):
            raise StoreError(
                f"{METADATA_NAME} of {storage} is damaged; "
                f"`attnsearch verify {storage} --repair` restores it"
            ) from error
        raise StoreError(f"{storage} is not an attnsearch store") from error


def ensure_root(storage: Storage) -> None:
    """Make sure that a folder is a store, or an empty folder that may become one.

    A store whose root is damaged is one by its scans.

    Raises:
        StoreError: it is neither, or another version wrote it.
    """
    try:
        _attributes(storage, "")
    except _NotOursError as error:
        if storage.names("") and not scan_folders(storage):
            raise StoreError(f"{storage} is not an attnsearch store") from error


def read_scan_attributes(storage: Storage, scan: str) -> dict[str, Any]:
    """The attributes of a scan's group.

    Raises:
        StoreError: its metadata is damaged, or another version wrote it.
    """
    try:
        return _attributes(storage, scan)
    except _NotOursError as error:
        raise damaged(storage, f"{scan}/{METADATA_NAME}", "is no metadata of a scan") from error


def check_version(storage: Storage, scan: str) -> None:
    """Refuse a scan that another version wrote; metadata that do not tell are let pass.

    Raises:
        StoreError: naming both versions.
    """
    with suppress(_NotOursError):
        _attributes(storage, scan)


def damaged(storage: Storage, name: str, what: str) -> StoreError:
    """The error that says what is wrong with a file of a store, and how to go on."""
    return StoreError(
        f"{name} of {storage} {what}; `attnsearch verify {storage} --repair`, then scan again"
    )


def scan_folders(storage: Storage) -> list[str]:
    """The scans of a store, sorted; a creation that was not finished has no ledger yet."""
    return [name for name in storage.folders() if storage.names(f"{name}/ledger")]


def encode_scan_group(attributes: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The metadata of a scan's group, whose arrays' metadata are among its files."""
    arrays = {
        name.removesuffix(f"/{METADATA_NAME}"): json.loads(data)
        for name, data in sorted(files.items())
        if name.endswith(f"/{METADATA_NAME}")
    }
    return _encode_group(attributes, arrays)


def encode_root(storage: Storage, scans: Iterable[str]) -> bytes:
    """The metadata of a store's root as these scans have it now.

    A scan whose metadata is damaged is left out.
    """
    members: dict[str, Any] = {}
    for scan in scans:
        metadata = _load(storage, f"{scan}/{METADATA_NAME}")
        if not isinstance(metadata, dict):
            continue
        inline = metadata.get("consolidated_metadata")
        nested = inline.get("metadata") if isinstance(inline, dict) else None
        if isinstance(nested, dict):
            members[scan] = {**metadata, "consolidated_metadata": _inline({})}
            members |= {f"{scan}/{name}": value for name, value in nested.items()}
    return _encode_group({SCHEMA_ATTRIBUTE: SCHEMA_VERSION}, members)


def listed_scans(storage: Storage) -> list[str] | None:
    """The scans that the metadata of a store's root list, be they there or not.

    None where the metadata are not what `write_root` wrote when they were.
    """
    metadata = _load(storage, METADATA_NAME)
    try:
        members = dict(metadata["consolidated_metadata"]["metadata"])
        whole = _encode_group(metadata["attributes"], members) == storage.read(METADATA_NAME)
    except (TypeError, KeyError, ValueError):
        return None
    listed = [name for name in members if "/" not in name]
    there = [name for name in scan_folders(storage) if name in listed]
    kept = {name: value for name, value in members.items() if name.split("/")[0] in there}
    same = _encode_group(metadata["attributes"], kept) == encode_root(storage, there)
    stray = any(name.split("/")[0] not in listed for name in members)
    return listed if whole and same and not stray else None


def write_root(storage: Storage, claim: Claim, without: Collection[str] = ()) -> None:
    """Bring the metadata of a store's root up to date. Nobody else may.

    Scans in `without`, which are about to go, are left out.
    """
    data = encode_root(storage, [each for each in scan_folders(storage) if each not in without])
    if storage.read(METADATA_NAME) != data:
        claim.write({METADATA_NAME: data})


class _NotOursError(Exception):
    """There is no metadata, or none of ours."""


def _attributes(storage: Storage, group: str) -> dict[str, Any]:
    metadata = _load(storage, f"{group}/{METADATA_NAME}".removeprefix("/"))
    attributes = metadata.get("attributes") if isinstance(metadata, dict) else None
    version = attributes.get(SCHEMA_ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(attributes, dict) or type(version) is not int:
        raise _NotOursError
    if version != SCHEMA_VERSION:
        age = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StoreError(
            f"{storage}{f', scan {group},' if group else ''} was written by {age} attnsearch "
            f"(schema {version}, this one reads {SCHEMA_VERSION})"
        )
    return attributes


def _load(storage: Storage, name: str) -> Any:
    if (storage.size(name) or 0) > _LONGEST_METADATA:
        return None
    try:
        return json.loads(storage.read(name) or b"", parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _encode_group(attributes: Mapping[str, Any], members: Mapping[str, Any]) -> bytes:
    metadata = {
        "attributes": dict(attributes),
        "consolidated_metadata": _inline(members),
        "node_type": "group",
        "zarr_format": 3,
    }
    return json.dumps(metadata, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n"


def _inline(members: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": dict(members)}
