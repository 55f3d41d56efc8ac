"""Whether a store is what was written, and what it costs if it is not.

Everything is read: metadata against its record, the files of every block against theirs, the
numbers in them against what must be true of attention. A damaged block can be dropped, and is
then sampled again by the next scan, which also puts damaged metadata right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.delayed import delayed

from attnsearch.errors import StoreError
from attnsearch.scheduling import THREADED, Advance, Runner
from attnsearch.store.checks import wrong_numbers
from attnsearch.store.description import describe_arrays
from attnsearch.store.encoding import BlockCodec
from attnsearch.store.groups import (
    METADATA_NAME,
    disk_errors,
    encode_root,
    ensure_root,
    listed_scans,
    read_scan_attributes,
    scan_folders,
    write_root,
)
from attnsearch.store.ledger import (
    FIXED,
    BlockRecord,
    FileMark,
    Ledger,
    fingerprints,
    has_blocks,
    read_fixed,
)
from attnsearch.store.places import Place, existing_storage
from attnsearch.store.schema import FLAGGED, LAYOUT_ATTRIBUTE, ScanLayout
from attnsearch.store.storage import Holder, Storage, held
from attnsearch.store.writer import ROOT_CLAIM, block_claim, ledger_claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it was written."""

    what: str
    block: int | None = None
    """The block that is lost by it; None where no block is."""
    damage: bool = True
    """Whether something is not what was written. A list that is out of date is no damage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanCheck:
    """What was found of one scan, or, under an empty name, of the store's own metadata."""

    scan: str
    blocks: int = 0
    """Blocks planned; 0 where the metadata do not tell."""
    committed: int = 0
    """Blocks that exist."""
    samples: int = 0
    """Samples in them."""
    flagged: int = 0
    """Those of them that were not finite, and are kept out of everything."""
    findings: tuple[Finding, ...] = ()


def count_blocks(path: Place, name: str | None = None) -> int:
    """Blocks that `verify` will read.

    Raises:
        StoreError: as `verify`.
    """
    storage, scans = _scans(path, name)
    with disk_errors("read", path):
        opened = (_open(storage, scan) for scan in scans)
        return sum(len(scan.ledger.read()) for scan in opened if scan.ledger is not None)


def verify(
    path: Place,
    name: str | None = None,
    advance: Advance = lambda _: None,
    runner: Runner = THREADED,
) -> list[ScanCheck]:
    """Check a store, or one of its scans; nothing is written.

    `advance` is told of every block that was read, which `runner` does.

    Raises:
        StoreError: there is no store or no such scan, it cannot be read, or another version of
            attnsearch wrote it.
    """
    storage, scans = _scans(path, name)
    with disk_errors("read", path):
        checks = [_check(storage, scan, advance, runner) for scan in scans]
        # Looked at twice, since another process may have created a scan meanwhile.
        if _root_finding(storage) and (finding := _root_finding(storage)):
            checks.insert(0, ScanCheck(scan="", findings=(finding,)))
        there = scan_folders(storage)
        # One that was removed meanwhile was found half gone.
        return [check for check in checks if not check.scan or check.scan in there]


def repair(path: Place, checks: Sequence[ScanCheck]) -> int:
    """Drop the blocks that a check found damaged, so that the next scan samples them again.

    Returns how many were dropped. The store's own metadata, which list the scans, are written anew
    from what is there; those of scans are left to the next scan, which knows what they were.

    Raises:
        StoreError: a block is being written by another process, or the disk refuses.
    """
    storage = existing_storage(path)
    dropped = 0
    with disk_errors("write", path):
        for check in checks:
            if check.scan and check.findings:
                dropped += _drop(storage, check)
        with storage.waited_claim(ROOT_CLAIM) as claim:
            write_root(storage, claim)
        storage.sweep("")  # claims of the dead that no scan will take up again
    return dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """A scan as far as its metadata can be believed."""

    name: str
    findings: tuple[Finding, ...]
    attributes: Mapping[str, Any]
    ledger: Ledger | None
    layout: ScanLayout | None


def _root_finding(storage: Storage) -> Finding | None:
    """What is to be said of the list of scans in the root; None if it is as they are."""
    scans = scan_folders(storage)
    # One whose creation was killed may not be listed; it has no blocks then.
    begun = [scan for scan in scans if has_blocks(storage, scan)]
    root = storage.read(METADATA_NAME)
    if any(root == encode_root(storage, each) for each in (scans, begun)):
        return None
    listed = listed_scans(storage)
    if listed is None:
        return Finding(what=f"{METADATA_NAME} does not list the scans as they are")
    gone, new = sorted(set(listed) - set(scans)), sorted(set(scans) - set(listed))
    differences = [f"{', '.join(gone)} no longer there"] if gone else []
    differences += [f"{', '.join(new)} not listed"] if new else []
    return Finding(
        what=f"the list of scans in {METADATA_NAME} is out of date: {'; '.join(differences)}",
        damage=False,
    )


def _scans(path: Place, name: str | None) -> tuple[Storage, list[str]]:
    storage = existing_storage(path)
    with disk_errors("read", path):
        ensure_root(storage)
        names = scan_folders(storage)
        if not names and storage.read(METADATA_NAME) is None:
            raise StoreError(f"{path} is not an attnsearch store")
    if name is None:
        return storage, names
    if name not in names:
        raise StoreError(f"{path} holds no scan called {name!r}; it holds {', '.join(names)}")
    return storage, [name]


def _open(storage: Storage, scan: str) -> _Scan:
    findings = []
    fixed = read_fixed(storage, scan)
    known = fingerprints(storage, scan) if fixed is None else {fixed.fingerprint}
    marks = {} if fixed is None else fixed.files
    if fixed is None:
        findings.append(Finding(what=f"{FIXED} is missing or no record"))
    files = {}
    for name, mark in marks.items():
        data = storage.read(f"{scan}/{name}")
        if data is None or FileMark.of(data) != mark:
            findings.append(Finding(what=f"{name} {_difference(data, mark)}"))
        else:
            files[name] = data
    attributes: Mapping[str, Any] = {}
    layout = None
    try:
        attributes = read_scan_attributes(storage, scan)
        layout = ScanLayout.from_dict(attributes.get(LAYOUT_ATTRIBUTE))
        if fixed is not None and not findings:
            describe_arrays(storage, scan, layout, files)
    except StoreError as error:
        if not findings:
            findings.append(Finding(what=str(error)))
    ledger = None
    if layout is not None and len(known) == 1:
        ledger = Ledger(storage, scan, layout, known.pop())
    return _Scan(
        name=scan,
        findings=tuple(findings),
        attributes=attributes,
        ledger=ledger,
        layout=layout,
    )


def _check(storage: Storage, name: str, advance: Advance, runner: Runner) -> ScanCheck:
    scan = _open(storage, name)
    if scan.ledger is None or scan.layout is None:
        return ScanCheck(scan=name, findings=scan.findings)
    records = scan.ledger.read()
    findings = list(scan.findings)
    for record_name, block in scan.ledger.damaged().items():
        findings.append(Finding(what=f"{record_name} is no record", block=block))
    look = delayed(_block_findings, pure=False)
    where = delayed((storage, name, scan.layout, scan.attributes), traverse=False)
    tasks = [look(where, record) for record in records.values()]
    found = runner.run(tasks, delayed(list)(tasks), advance) if tasks else []
    for block, whats in zip(records, found, strict=True):
        findings += [Finding(what=what, block=block) for what in whats]
    rows = [scan.layout.block_slice(block) for block in records]
    return ScanCheck(
        scan=name,
        blocks=scan.layout.blocks,
        committed=len(records),
        samples=sum(each.stop - each.start for each in rows),
        flagged=sum(len(record.flagged) for record in records.values()),
        findings=tuple(findings),
    )


def _block_findings(
    where: tuple[Storage, str, ScanLayout, Mapping[str, Any]], record: BlockRecord
) -> list[str]:
    storage, scan, layout, attributes = where
    files = {name: storage.read(f"{scan}/{name}") for name in record.files}
    different = [
        f"{name} {_difference(data, record.files[name])}"
        for name, data in files.items()
        if data is None or FileMark.of(data) != record.files[name]
    ]
    if different:
        return different
    try:
        whole = {name: data for name, data in files.items() if data is not None}
        arrays = BlockCodec(layout).decode(record.block, whole)
    except MemoryError:
        raise
    except Exception:  # whatever decoders raise
        return ["its files cannot be decoded"]
    if np.flatnonzero(arrays[FLAGGED]).tolist() != list(record.flagged):
        return [f"{FLAGGED} is not as recorded"]
    return wrong_numbers(layout, attributes, arrays)


def _difference(data: bytes | None, mark: FileMark) -> str:
    if data is None:
        return "is missing"
    if len(data) != mark.size:
        return f"has {len(data)} bytes, not {mark.size}"
    return "has other bytes than were written"


def _drop(storage: Storage, check: ScanCheck) -> int:
    scan = _open(storage, check.scan)
    if scan.ledger is None or scan.layout is None:
        return 0
    blocks = sorted({each.block for each in check.findings if each.block is not None})
    for block in blocks:
        claim = storage.claim(block_claim(scan.name, block))
        if isinstance(claim, Holder):
            raise StoreError(
                f"block {block} of {storage}/{scan.name} is being written by {claim}; try later"
            )
        with held(claim):
            with storage.waited_claim(ledger_claim(scan.name)) as records:
                scan.ledger.drop(records, [block])
            if block < scan.layout.blocks:
                claim.delete(f"{scan.name}/{spec.file(block)}" for spec in scan.layout.arrays())
    with storage.waited_claim(ledger_claim(scan.name)) as records:
        scan.ledger.drop(records, [])
    return len(blocks)
