"""A power cut keeps what was forced to the disk, and of the rest whatever it likes.

The file operations of one scan are recorded, with what was forced to the disk and when. A cut at
any moment leaves every forced operation done; of the others, any may be done or not, and a file
that was not forced holds any part of its bytes. From every such disk the store must come back.
"""

import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from budget import examples
from hypothesis import Phase, given
from hypothesis import strategies as st

from attnsearch.store import Turn, verify

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class File:
    """An inode."""

    data: bytes = b""
    forced: int | None = None
    """When its bytes were."""


@dataclass
class Operation:
    """A change of a folder's entries."""

    kind: str
    path: Path
    to: Path | None = None
    file: File | None = None
    forced: int | None = None
    """When the folder was."""


@dataclass
class Recorder:
    """The operations of a process below a folder, in order."""

    root: Path
    operations: list[Operation] = field(default_factory=list)
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    """(when, block)"""
    on: bool = True

    def watch(self, event, arguments):
        if not self.on or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        path = Path(os.fspath(arguments[0]))
        if self.root not in path.parents and path != self.root:
            return
        if event == "open" and arguments[2] & os.O_CREAT:
            self.operations.append(Operation("create", path, file=File()))
        elif event == "os.rename":
            self.operations.append(Operation("rename", path, to=Path(os.fspath(arguments[1]))))
        elif event in ("os.mkdir", "os.remove", "os.rmdir"):
            self.operations.append(Operation(event, path))

    def force(self, descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        now = len(self.operations)
        for operation in self.operations:
            changed = operation.to or operation.path
            if operation.forced is None and changed.parent == path:
                operation.forced = now
        if path.is_file():
            created = [o for o in self.operations if o.kind == "create" and o.path == path]
            assert created[-1].file is not None
            created[-1].file.data = path.read_bytes()
            created[-1].file.forced = now

    def acknowledge(self, block):
        self.acknowledged.append((len(self.operations), block))


def disk_after(recorder: Recorder, moment: int, chance: random.Random | None, disk: Path) -> None:
    """Lay out what a power cut at a moment may leave; without chance, the least it may."""
    files: dict[Path, File] = {}
    places: dict[Path, File] = {}  # where an inode is as the process saw it
    for operation in recorder.operations[:moment]:
        path = disk / operation.path.relative_to(recorder.root)
        forced = operation.forced is not None and operation.forced <= moment
        done = forced or (chance is not None and chance.random() < 0.5)
        if operation.kind == "create":
            assert operation.file is not None
            places[path] = operation.file
            if done and path.parent.is_dir():
                files[path] = operation.file
        elif operation.kind == "rename":
            assert operation.to is not None
            to = disk / operation.to.relative_to(recorder.root)
            places[to] = places.pop(path)
            if done and to.parent.is_dir():
                files.pop(path, None)
                files[to] = places[to]
        elif operation.kind == "os.remove":
            places.pop(path, None)
            if done:
                files.pop(path, None)
        elif operation.kind == "os.mkdir" and done and path.parent.is_dir():
            path.mkdir(exist_ok=True)
    for path, file in files.items():
        size = chance.randint(0, len(file.data)) if chance is not None else 0
        whole = file.forced is not None and file.forced <= moment
        path.write_bytes(file.data if whole else file.data[:size])


@pytest.fixture(scope="module")
def recorded(make, tmp_path_factory):
    """A whole scan, what its writing did to the disk, and a folder with its bytes."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("finds the path of a descriptor in /proc")
    scan = make(flagged=(4,))
    root = tmp_path_factory.mktemp("disk")
    recorder = Recorder(root)
    sys.addaudithook(recorder.watch)
    fsync = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "os.fsync", lambda descriptor: (recorder.force(descriptor), fsync(descriptor))
        )
        with scan.open(root / "store") as writer:
            for block in range(scan.layout.blocks):
                writer.write_block(block, scan.block(block))
                recorder.acknowledge(block)
    recorder.on = False  # an audit hook cannot be taken back
    return scan, recorder, root / "store"


def tree_bytes(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def survives(recorded, moment, chance):
    scan, recorder, whole = recorded
    with TemporaryDirectory() as folder:
        disk_after(recorder, moment, chance, Path(folder))
        store = Path(folder) / "store"
        promised = {block for when, block in recorder.acknowledged if when <= moment}
        if promised:
            check = verify(store)[-1]
            assert check.findings == ()
        with scan.open(store) as writer:
            there = writer.committed()
            assert there >= promised
            for check in verify(store):
                assert check.findings == ()
            for block in range(scan.layout.blocks):
                if writer.claim(block) is Turn.OURS:
                    writer.write_block(block, scan.block(block))
        assert tree_bytes(store) == tree_bytes(whole)
        return len(there)


@examples(8, deep=100, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.floats(0, 1), st.integers(0, 2**32))
def test_a_power_cut_at_any_moment_costs_no_acknowledged_block(recorded, part, seed):
    moment = round(part * len(recorded[1].operations))
    survives(recorded, moment, random.Random(seed))


def test_right_after_every_acknowledgement_the_block_is_safe_whatever_else_is_lost(recorded):
    for when, block in recorded[1].acknowledged:
        assert survives(recorded, when, None) == block + 1


@pytest.mark.skipif(shutil.which("strace") is None, reason="watches system calls with strace")
def test_the_system_is_asked_to_force_files_then_folders_then_the_record(tmp_path):
    """The same order as seen from outside the process."""
    code = (
        "import runpy, sys, pathlib\n"
        f"make = runpy.run_path({str(Path(__file__).with_name('conftest.py'))!r})['make_scan']\n"
        "make(samples=3).write(pathlib.Path(sys.argv[1]))\n"
    )
    log = tmp_path / "calls"
    calls = "fsync,rename,renameat,renameat2,unlink"
    command = ["strace", "-f", "-y", "-s", "4096", "-o", log, "-e", f"trace={calls}"]
    result = subprocess.run(
        [*command, sys.executable, "-c", code, tmp_path / "store"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    if "ptrace" in result.stderr:
        pytest.skip("processes may not be watched here")
    assert result.returncode == 0, result.stderr
    events = []
    pending = {}  # what a thread has asked for while another was heard
    for line in log.read_text().splitlines():
        thread = line.split()[0]
        if match := re.search(r"fsync\(\d+<([^>]*)>", line):
            pending[thread] = match[1]
        if re.search(r"fsync.*\)\s+= 0", line):
            events.append(("force", pending.pop(thread)))
        elif match := re.search(r'rename\w*\(.*?"([^"]+)", .*?"([^"]+)".*\) = 0', line):
            events.append(("place", match[2]))
    group = str(tmp_path / "store" / "model")
    record = events.index(("place", f"{group}/ledger/0.json"))
    placed = [i for i, (kind, path) in enumerate(events) if kind == "place" and "/c.0" in path]
    data = [i for i in placed if placed and events[i][1].split("/")[-2] in FILES]
    assert len(data) == len(FILES)
    for index in data:
        path = events[index][1]
        folder = events.index(("force", str(Path(path).parent)), index)
        assert index < folder < record
    assert ("force", f"{group}/ledger") in events[record:]
    forced_before = [path for kind, path in events[: data[0]] if kind == "force"]
    assert sum("/.writing/model@0." in path for path in forced_before) == len(FILES)


FILES = (
    "sketch", "entropy", "peak", "energy", "region_coefficients", "score_shape", "score_colour",
    "score_binding", "score_relation_strict", "score_relation_loose", "thumbnail", "flagged",
)  # fmt: skip
