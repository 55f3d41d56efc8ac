"""Whether a store is what was written."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from attnsearch import store as stores
from attnsearch.api.scans import opened_runner
from attnsearch.lookup import find_store
from attnsearch.progress import progress
from attnsearch.scheduling import THREADS
from attnsearch.store import Place, ScanCheck
from attnsearch.tables import Column, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFinding:
    """One thing that is not as it was written."""

    scan: str
    """Empty for the store's own metadata."""
    block: int | None
    """The block that is lost by it; None where no block is."""
    what: str
    damage: bool
    """Whether something is not what was written. A list that is out of date is no damage."""


class Findings(Table[StoreFinding]):
    """Everything that is not as it was written."""

    @property
    def columns(self) -> Sequence[Column[StoreFinding]]:
        """See `Table`."""
        return [
            Column("scan", lambda row: row.scan or "(store)", words=True),
            Column("block", lambda row: "metadata" if row.block is None else str(row.block)),
            Column("finding", lambda row: row.what, words=True),
        ]


class Verification(Table[ScanCheck]):
    """A row for every scan, and one under an empty name if the store's own metadata are wrong."""

    dropped: int = 0
    """Blocks that the repair dropped, which the scans' own commands bring back."""
    unrepaired: Sequence[str] = ()
    """Scans that are damaged after the repair: of their metadata, which scanning again restores."""
    _name: str

    @property
    def columns(self) -> Sequence[Column[ScanCheck]]:
        """See `Table`."""
        return [
            Column("scan", lambda row: row.scan or "(store)", words=True),
            Column("blocks", lambda row: str(row.committed)),
            Column("of", lambda row: str(row.blocks)),
            Column("samples", lambda row: str(row.samples)),
            Column("flagged", lambda row: str(row.flagged)),
            Column("findings", lambda row: str(len(row.findings))),
        ]

    def record(self, row: ScanCheck) -> dict[str, Any]:
        """The fields of `ScanCheck`, each finding with those of `Finding`."""
        return asdict(row) | {"findings": [asdict(finding) for finding in row.findings]}

    @property
    def findings(self) -> Findings:
        """Those of all scans, a row each."""
        rows = [
            StoreFinding(
                scan=check.scan, block=finding.block, what=finding.what, damage=finding.damage
            )
            for check in self
            for finding in check.findings
        ]
        return Findings(rows, f"findings in {self._name}")

    @property
    def damaged(self) -> int:
        """How many findings are damage."""
        return sum(finding.damage for finding in self.findings)


def verify(
    store: Place | None = None,
    *,
    scan: str | None = None,
    repair: bool = False,
    dask: str = THREADS,
) -> Verification:
    """Read every byte of a store, or of one of its scans, and compare it with what was written.

    `store` is a folder or URL; by default the usual store. With `repair` damaged blocks are
    dropped, so that the next scan redoes them, and the list of scans is written anew; the table
    says what was found before. `dask` says where blocks are read, as of `ask`.

    Raises:
        StoreError: there is no such store or scan, it cannot be read, or a block to be dropped is
            being written by another process.
    """
    place = find_store(store)
    blocks = stores.count_blocks(place, scan)
    with opened_runner(dask) as runner, progress("checking", blocks, "blocks") as advance:
        checks = stores.verify(place, scan, advance, runner)
    name = PurePosixPath(str(place)).name
    notes = []
    for check in checks:
        for finding in check.findings:
            where = "metadata" if finding.block is None else f"block {finding.block}"
            notes.append(f"{check.scan or name}, {where}: {finding.what}")
    found = Verification(checks, name, notes)
    found._name = name
    if repair and found.findings:
        found.dropped = stores.repair(place, checks)
        if found.damaged:
            found.unrepaired = [
                check.scan for check in stores.verify(place, scan) if check.findings
            ]
    return found
