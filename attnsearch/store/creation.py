"""What never changes in a scan: made once, compared when the scan goes on, put right if damaged.

A scan exists when its record of fixed files does, which is written last. Blocks are not touched.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np

from attnsearch.errors import StoreError
from attnsearch.store.description import describe_array
from attnsearch.store.encoding import Coordinates
from attnsearch.store.groups import METADATA_NAME, check_version, read_scan_attributes
from attnsearch.store.ledger import FIXED, FileMark, FixedRecord, fingerprints, marks_of, read_fixed
from attnsearch.store.schema import ScanLayout
from attnsearch.store.storage import Claim, Storage

_OURS: Final = re.compile(r"zarr\.json|ledger/[^/]+|[a-z][a-z0-9_]*/(zarr\.json|c(\.\d+)*)")
"""Files of a scan, relative to its folder."""


def ensure_scan(
    storage: Storage,
    claim: Claim,
    scan: str,
    layout: ScanLayout,
    files: Mapping[str, bytes],
    coordinates: Coordinates,
    attributes: Mapping[str, Any],
) -> FixedRecord:
    """Make a scan of these files, or make sure that it is there; its record.

    Raises:
        StoreError: a different scan has the name, the folder is no scan, or more is damaged than
            `files` can put right.
    """
    ours = FixedRecord(files=marks_of(files))
    there = read_fixed(storage, scan)
    if there is None:
        _make(storage, claim, scan, files, ours)
        return ours
    damaged = [
        name
        for name, mark in there.files.items()
        if FileMark.of(storage.read(f"{scan}/{name}") or b"") != mark
    ]
    if METADATA_NAME in damaged:
        check_version(storage, scan)
    if there != ours:
        # Another version of Zarr may write the same in other bytes.
        _check_same(storage, scan, layout, there, damaged, coordinates, attributes)
    if beyond := [name for name in damaged if ours.files.get(name) != there.files[name]]:
        raise StoreError(
            f"{scan}/{beyond[0]} of {storage} is damaged and cannot be made again; remove the "
            f"folder {scan} and scan again"
        )
    claim.write({f"{scan}/{name}": files[name] for name in damaged})
    return there


def _make(
    storage: Storage, claim: Claim, scan: str, files: Mapping[str, bytes], record: FixedRecord
) -> None:
    """Write everything, over what a creation that was killed may have left.

    If there are blocks, the record was damaged; then it must be theirs.
    """
    left = names_of_scan(storage, scan)
    found = fingerprints(storage, scan)
    if found - {record.fingerprint}:
        raise StoreError(
            f"{scan}/{FIXED} of {storage} is damaged, and the blocks there are of a different "
            f"scan; choose another --name, or remove the folder {scan}"
        )
    if not found:
        claim.delete(left)
    claim.write({f"{scan}/{name}": data for name, data in files.items()})
    claim.write({f"{scan}/{FIXED}": record.line()})


def names_of_scan(storage: Storage, scan: str) -> list[str]:
    """Every file in the folder of a scan, or of what may become one or is left of one.

    Raises:
        StoreError: one of them is none of a scan's.
    """
    names = storage.names(scan)
    strange = [name for name in names if not _OURS.fullmatch(name.removeprefix(f"{scan}/"))]
    if strange:
        raise StoreError(f"{storage}/{scan} is no scan: it holds {strange[0][:200]}")
    return names


def _check_same(
    storage: Storage,
    scan: str,
    layout: ScanLayout,
    fixed: FixedRecord,
    damaged: Collection[str],
    coordinates: Coordinates,
    attributes: Mapping[str, Any],
) -> None:
    """Refuse to go on with a scan that is not the one asked for, as far as can be told."""
    differences: list[str] = []
    if METADATA_NAME not in damaged:
        differences = _differences(read_scan_attributes(storage, scan), attributes)
    if not differences:
        files = {name: storage.read(f"{scan}/{name}") or b"" for name in fixed.files}
        for name, (_, values) in coordinates.items():
            if not any(file.startswith(f"{name}/") for file in damaged):
                stored = describe_array(storage, scan, layout, name, files).values
                if not np.array_equal(np.asarray(stored), values):
                    differences.append(f"coordinate {name}")
    if differences:
        raise StoreError(
            f"{storage}/{scan} holds a different scan: {', '.join(differences)}; "
            "choose another --name or another store"
        )


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted(stored.keys() | asked.keys()):
        there, here = stored.get(name), asked.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            found += [f"{name}.{difference}" for difference in _differences(there, here)]
        else:
            found.append(f"{name} ({_short(there)} there, {_short(here)} asked)")
    return found


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
