"""Copy finished scans to another place, most often to an object store where others read them."""

from collections.abc import Callable

from attnsearch.errors import StoreError
from attnsearch.store.groups import (
    damaged,
    disk_errors,
    ensure_root,
    read_scan_attributes,
    write_root,
)
from attnsearch.store.ledger import (
    FIXED,
    PACKED,
    BlockRecord,
    FileMark,
    FixedRecord,
    Ledger,
    read_fixed,
)
from attnsearch.store.places import Place, existing_storage, storage_at
from attnsearch.store.reader import read_fixed_files, scan_names
from attnsearch.store.schema import LAYOUT_ATTRIBUTE, ScanLayout
from attnsearch.store.storage import Claim, Storage
from attnsearch.store.writer import ROOT_CLAIM


def publish(
    source: Place,
    target: Place,
    name: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Copy the scans of a store, or one of them, to another place, beside what is there.

    The records of a scan come last, so that nobody reads it before it is whole; interrupted and
    called again, it ends the same. `advance` is told of every block. Returns the scans that were
    copied: those that are there already are not.

    Raises:
        StoreError: a scan is not complete or is damaged, another scan of its name is there, or a
            place cannot be read or written.
    """
    names = scan_names(source)
    if name is not None and name not in names:
        raise StoreError(f"{source} holds no scan called {name!r}; it holds {', '.join(names)}")
    origin, destination = existing_storage(source), storage_at(target)
    with (
        disk_errors("publish to", destination),
        destination.waited_claim(ROOT_CLAIM) as claim,
    ):
        ensure_root(destination)
        write_root(destination, claim)
        copied = [
            scan
            for scan in (names if name is None else [name])
            if _copy(origin, destination, claim, scan, advance)
        ]
        write_root(destination, claim)
    return copied


def _copy(
    origin: Storage,
    destination: Storage,
    claim: Claim,
    scan: str,
    advance: Callable[[int], None],
) -> bool:
    """Copy a scan; whether it was not there."""
    fixed, files = read_fixed_files(origin, scan)
    records = _complete(origin, scan, fixed)
    there = read_fixed(destination, scan)
    if there is not None and there != fixed:
        raise StoreError(
            f"{destination} holds a different scan called {scan}; give one of them another name: "
            "attnsearch store rename"
        )
    packed = b"".join(record.line() for record in records)
    if destination.read(f"{scan}/{PACKED}") == packed:
        advance(len(records))
        return False
    claim.write({f"{scan}/{name}": data for name, data in files.items()})
    for record in records:
        claim.write({f"{scan}/{name}": _whole(origin, scan, name, record) for name in record.files})
        advance(1)
    claim.write({f"{scan}/{FIXED}": fixed.line()})
    claim.write({f"{scan}/{PACKED}": packed})
    return True


def _complete(storage: Storage, scan: str, fixed: FixedRecord) -> list[BlockRecord]:
    """The records of all blocks of a scan."""
    layout = ScanLayout.from_dict(read_scan_attributes(storage, scan).get(LAYOUT_ATTRIBUTE))
    records = Ledger(storage, scan, layout, fixed.fingerprint).read()
    if len(records) < layout.blocks:
        raise StoreError(
            f"scan {scan} of {storage} is not complete: {len(records)} of {layout.blocks} blocks; "
            "finish it first"
        )
    return list(records.values())


def _whole(storage: Storage, scan: str, name: str, record: BlockRecord) -> bytes:
    """A file of a block, if it is what was written."""
    data = storage.read(f"{scan}/{name}")
    if data is None or FileMark.of(data) != record.files[name]:
        raise damaged(storage, f"{scan}/{name}", "is not what was written")
    return data
