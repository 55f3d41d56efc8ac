"""What a piece of work takes: time, processor time and memory, of a process and its children."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import psutil

_EVERY_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What was measured."""

    seconds: float
    cpu_seconds: float
    """User and system, of all threads and children."""
    peak_bytes: int
    """Resident memory by which process and children outgrew what they were at the beginning."""


def footprint(work: Callable[[], object]) -> Footprint:
    """Do some work and see what it takes. Memory is looked at a hundred times a second."""
    before = _resident()
    cpu = _cpu_seconds()
    begin = perf_counter()
    with _watched(before) as peaks:
        work()
    return Footprint(
        seconds=perf_counter() - begin,
        cpu_seconds=_cpu_seconds() - cpu,
        peak_bytes=max(peaks) - before,
    )


def forget(folder: Path) -> None:
    """Make the next reading of a folder's files one from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)  # what is not on the disk yet cannot be forgotten
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


@contextmanager
def _watched(before: int) -> Iterator[list[int]]:
    peaks = [before]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY_SECONDS):
            peaks[0] = max(peaks[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


def _family() -> list[psutil.Process]:
    here = psutil.Process()
    return [here, *here.children(recursive=True)]


def _resident() -> int:
    total = 0
    for process in _family():
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def _cpu_seconds() -> float:
    times = [process.cpu_times() for process in _family()]
    return sum(each.user + each.system for each in times)
