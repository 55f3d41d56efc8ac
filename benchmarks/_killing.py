"""Children that scan and are killed, and what must be true of a store after each of them.

A child is forked from a process in which everything is loaded, so that it works at once, and shares
nothing with it but the disk. It says on the disk which blocks were committed, by what it was told.
"""

import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from attnsearch.scanning import ScanPlan, Subject, execute_plan
from attnsearch.store import ScanWriter, open_store, scan_names, verify

STORE: Final = "store"


@dataclass(frozen=True, slots=True)
class Instant:
    """The moment before an operation on a path."""

    operation: str
    path: str
    """Regular expression; `{block}` stands for a block's number."""
    occurrence: int = 1
    fresh: bool = False
    """Only a store that does not exist yet comes to it."""


INSTANTS: Final = {
    "the store is claimed": Instant("open", r"/store\.lock$", fresh=True),
    "its root comes into place": Instant("os.rename", r"store/zarr\.json$", fresh=True),
    "the scan's metadata come into place": Instant("os.rename", r"scan/zarr\.json$", fresh=True),
    "the scan exists": Instant("os.rename", r"ledger/fixed\.json$", fresh=True),
    "the root lists it": Instant("os.rename", r"store/zarr\.json$", 2, fresh=True),
    "a block is claimed": Instant("open", r"scan@{block}\.lock$"),
    "its first file is forced to the disk": Instant("os.fsync", r"scan@{block}\.0$"),
    "its last file is written": Instant("open", r"scan@{block}\.11$"),
    "its first file comes into place": Instant("os.rename", r"sketch/c\.{block}\."),
    "its last file comes into place": Instant("os.rename", r"flagged/c\.{block}$"),
    "a folder of it is forced to the disk": Instant("os.fsync", r"scan/sketch$"),
    "its record comes into place": Instant("os.rename", r"ledger/{block}\.json$"),
    "the record's folder is forced to the disk": Instant("os.fsync", r"scan/ledger$", 2),
    "its claim is released": Instant("os.remove", r"scan@{block}\.lock$"),
    "the packed ledger comes into place": Instant("os.rename", r"ledger/blocks\.jsonl$"),
    "a record that was packed is removed": Instant("os.remove", r"ledger/{block}\.json$"),
    "the last claim is released": Instant("os.remove", r"scan@ledger\.lock$"),
}
"""What a process may be killed before, in the order in which a scan comes to it."""


def die_before(instant: Instant, block: int) -> None:
    """Have this process kill itself when it comes to an instant."""
    pattern = re.compile(instant.path.format(block=block))
    left = instant.occurrence

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event != instant.operation:
            return
        paths = [os.fspath(a) for a in arguments[:2] if isinstance(a, str | os.PathLike)]
        if any(isinstance(path, str) and pattern.search(path) for path in paths):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    real = os.fsync

    def fsync(descriptor: int) -> None:
        sys.audit("os.fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    patch("os.fsync", fsync).start()
    sys.addaudithook(watch)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is in a store after a child died."""

    acknowledged: frozenset[int]
    """Blocks that a child was told are written."""
    lost: frozenset[int]
    """Those of them that are not there."""
    torn: frozenset[int]
    """Blocks that are there and are not what was written, by the ledger or by the reference."""
    findings: tuple[str, ...] = ()
    """What is not as it was written, in words."""


class Work:
    """One scan into one store, done by one child after another or by several at once."""

    def __init__(self, plan: ScanPlan, subject: Subject, folder: Path) -> None:
        """`folder` is to hold the store, and what the children say."""
        self._plan = plan
        self._subject = subject
        self._acknowledged = folder / f"{plan.name}.acknowledged"
        self.store = folder / STORE

    def start(self, before: Callable[[], None] = lambda: None) -> int:
        """Fork a child that scans to the end; its process id. `before` runs in it first."""
        child = os.fork()
        if child:
            return child
        try:
            before()
            self._scan()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)

    def _scan(self) -> None:
        write_block = ScanWriter.write_block

        def write_and_say(writer: ScanWriter, block: int, arrays: Mapping[str, Any]) -> None:
            write_block(writer, block, arrays)
            os.write(said, f"{block}\n".encode())

        said = os.open(self._acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with patch.object(ScanWriter, "write_block", write_and_say):
            execute_plan(self._plan, self._subject, self.store)

    def state(self, reference: Mapping[str, bytes]) -> State:
        """What is in the store now, compared with the files of a scan that nobody killed."""
        said = self._acknowledged.read_text() if self._acknowledged.exists() else ""
        acknowledged = frozenset(map(int, said.split()))
        if not scan_exists(self.store, self._plan):
            return State(acknowledged=acknowledged, lost=acknowledged, torn=frozenset())
        found = {check.scan: check for check in verify(self.store)}.get(self._plan.name)
        findings = () if found is None else found.findings
        there = committed_blocks(self.store, self._plan)
        files = {block: files_of_block(self._plan, block) for block in there}
        different = {
            name: block
            for block, names in files.items()
            for name in names
            if _bytes(self.store / name) != reference[name]
        }
        torn = {*different.values(), *(each.block for each in findings if each.block is not None)}
        return State(
            acknowledged=acknowledged,
            lost=acknowledged - there,
            torn=frozenset(torn),
            findings=(
                *(each.what for each in findings),
                *(f"{name} is not as in the reference" for name in different),
            ),
        )


def committed_blocks(store: Path, plan: ScanPlan) -> frozenset[int]:
    """The blocks that a store shows."""
    if not scan_exists(store, plan):
        return frozenset()
    samples = open_store(store)[plan.name]["sample"].to_numpy()
    return frozenset(int(sample) // plan.layout.block for sample in samples)


def scan_exists(store: Path, plan: ScanPlan) -> bool:
    """Whether a store has come so far that it has the scan."""
    return (store / "zarr.json").exists() and plan.name in scan_names(store)


def files_of_block(plan: ScanPlan, block: int) -> list[str]:
    """The files of a block, relative to the store."""
    return [f"{plan.name}/{spec.file(block)}" for spec in plan.layout.arrays()]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def wait_for(child: int) -> bool:
    """Wait until a child has ended; whether it was killed.

    Raises:
        SystemExit: it failed.
    """
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and status:
        raise SystemExit("a child failed; see above")
    return os.WIFSIGNALED(status)
