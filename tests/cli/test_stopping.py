"""However a command is told to stop, it ends in one line and the work that was done is there."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnsearch.models import Checkpoint, save_checkpoint
from attnsearch.store import open_scan, verify

SLOW = """
import pathlib, sys, time
from attnsearch.cli import main, stopping
from attnsearch.store import local

if len(sys.argv) > 1 and sys.argv[1] == "slow":
    real, started = local.LocalClaim.write, pathlib.Path(sys.argv[2])

    def write(self, files):
        if any("/sketch/c." in name for name in files):
            started.touch()
            time.sleep(1000)
        real(self, files)

    def init(self, number):
        started.with_name("asked").touch()
        super(stopping.Stopped, self).__init__()
        self.exit_code = 128 + number

    local.LocalClaim.write = write
    stopping.Stopped.__init__ = init
    del sys.argv[1:3]
main()
"""


@pytest.fixture(autouse=True)
def _hangups_are_heard() -> Iterator[None]:
    """Also where the tests themselves run under `nohup`, which commands inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


def start(checkpoint: Path, store: Path, *before: str | Path) -> subprocess.Popen[str]:
    words = ["scan", checkpoint, "--store", store, "--seeds", "200", "--batch", "16"]
    command = [sys.executable, "-c", SLOW, *map(str, before), *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], pattern: str, store: Path) -> None:
    while process.poll() is None and not list(store.parent.glob(pattern)):
        time.sleep(0.01)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.deep),  # takes the way of SIGTERM
    ],
)
def test_a_scan_that_is_told_to_stop_says_how_to_go_on(
    checkpoint: Path, tmp_path: Path, number: signal.Signals
) -> None:
    store = tmp_path / "s"
    with start(checkpoint, store) as process:
        wait_for(process, "s/tiny/ledger/0.json", store)
        process.send_signal(number)
        _, news = process.communicate()
    assert process.returncode == 128 + number
    assert "Traceback" not in news
    assert news.splitlines()[-1].endswith("run the same command again to continue")
    assert open_scan(store).sizes["sample"] >= 16
    assert [check.findings for check in verify(store)] == [()]
    assert not (store / ".writing").exists()


def test_a_second_ctrl_c_ends_it_at_once_and_loses_nothing(
    checkpoint: Path, tmp_path: Path
) -> None:
    store, started = tmp_path / "s", tmp_path / "started"
    with start(checkpoint, store, "slow", started) as process:
        wait_for(process, "started", store)
        process.send_signal(signal.SIGINT)
        wait_for(process, "asked", store)
        assert process.poll() is None  # it waits for the disk
        process.send_signal(signal.SIGINT)
        _, news = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in news
    assert news.splitlines()[-1].startswith("attnsearch: stopped at once")
    assert [check.findings for check in verify(store)] == [()]


@pytest.mark.deep
def test_what_is_ignored_from_outside_stays_ignored(checkpoint: Path, tmp_path: Path) -> None:
    """As under `nohup`."""
    store = tmp_path / "s"
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start(checkpoint, store)
    finally:
        signal.signal(signal.SIGHUP, previous)
    with process:
        wait_for(process, "s/tiny/ledger/0.json", store)
        process.send_signal(signal.SIGHUP)
        wait_for(process, "s/tiny/ledger/2.json", store)
        assert process.poll() is None
        process.kill()
        process.communicate()
