"""A disk that is full, read-only or over quota ends a scan in one line and costs nothing there."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attnsearch.errors import StoreError
from attnsearch.store import open_scan, verify

ROOT = Path(__file__).resolve().parents[2]

# Runs where it may mount. Prints what a user would be told, and what is left.
ON_A_SMALL_DISK = """
import json, os, pathlib, runpy, subprocess, sys
from attnsearch.errors import AttnsearchError
from attnsearch.store import open_scan
from attnsearch.store import verify

conftest, disk = sys.argv[1], pathlib.Path(sys.argv[2])
scan = runpy.run_path(conftest)["make_scan"](samples=60, canvas=(64, 64))
told = {}

def attempt(what):
    try:
        scan.write(disk / "store")
        told[what] = "done"
    except AttnsearchError as error:
        told[what] = str(error)

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "none", disk], check=True)
attempt("full")
told["left"] = [path.name for path in disk.glob("store/.writing/*")]
told["committed"] = verify(disk / "store")[-1].committed
told["findings"] = [len(check.findings) for check in verify(disk / "store")]
told["readable"] = open_scan(disk / "store").sizes["sample"]
attempt("still full")
subprocess.run(["mount", "-o", "remount,size=8m", "none", disk], check=True)
attempt("space")
subprocess.run(["mount", "-o", "remount,ro", "none", disk], check=True)
attempt("read-only")
told["read"] = open_scan(disk / "store").sizes["sample"]
told["findings"] += [len(check.findings) for check in verify(disk / "store")]
scan.write(pathlib.Path(sys.argv[3]))
told["same"] = all(
    path.read_bytes() == (pathlib.Path(sys.argv[3]) / path.relative_to(disk / "store")).read_bytes()
    for path in (disk / "store").rglob("*") if path.is_file()
)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    if shutil.which("unshare") is None:
        pytest.skip("mounts a small disk, for which it needs unshare")
    disk = tmp_path_factory.mktemp("disk")
    reference = tmp_path_factory.mktemp("whole") / "store"
    conftest = Path(__file__).with_name("conftest.py")
    alone = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*alone, "mount", "-t", "tmpfs", "none", disk]).returncode:
        pytest.skip("nothing may be mounted here")
    result = subprocess.run(
        [*alone, sys.executable, "-c", ON_A_SMALL_DISK, conftest, disk, reference],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_full_disk_is_one_line_and_leaves_only_whole_blocks(told):
    for attempt in ("full", "still full"):
        assert told[attempt].startswith("cannot write ")
        assert told[attempt].endswith("No space left on device")
        assert "\n" not in told[attempt]
    assert 0 < told["committed"] < 20
    assert told["readable"] == 3 * told["committed"]
    assert set(told["findings"]) == {0}
    assert told["left"] == []


def test_with_space_again_the_scan_ends_with_the_same_bytes(told):
    assert told["space"] == "done"
    assert told["same"]


def test_a_store_that_is_read_only_can_be_read_and_says_so_when_it_is_scanned(told):
    assert told["read"] == 60
    assert told["read-only"].startswith("cannot write ")
    assert told["read-only"].endswith("Read-only file system")


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("call", ["fsync", "rename", "mkdir", "open"])
def test_whatever_the_disk_refuses_is_one_line_and_can_be_tried_again(
    scan, store, monkeypatch, number, call
):
    scan.write(store, blocks=1)
    writer = scan.open(store)
    real = getattr(os, call)
    with monkeypatch.context() as patch:

        def refuse(path, *args, **kwargs):
            inside = call == "fsync" or str(store) in os.fspath(path)
            if not inside or (call == "open" and not (args and args[0] & os.O_CREAT)):
                return real(path, *args, **kwargs)
            raise OSError(number, os.strerror(number))

        patch.setattr(os, call, refuse)
        with pytest.raises(StoreError, match="cannot write") as caught:
            writer.write_block(1, scan.block(1))
    assert os.strerror(number) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert writer.committed() == {0}
    assert open_scan(store).sizes["sample"] == 3
    writer.write_block(1, scan.block(1))
    writer.release()
    scan.write(store)
    assert [check.findings for check in verify(store)] == [()]
