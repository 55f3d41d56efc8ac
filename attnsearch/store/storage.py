"""What a store asks of the place it lies in: whole, lasting writes of named bytes, and claims.

A name is a path relative to the store's root, parts separated by `/`. What the bytes mean is the
business of the other modules; `local` keeps them in a folder, `objects` in an object store.
"""

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

from attnsearch.cleanup import on_error

WRITING: Final = ".writing"
"""Folder of claims and of files that are not in place yet; gone when nobody writes."""

DERIVED: Final = ".cache"
"""Folder of what was worked out from the store; anything in it may be removed at any time."""

LOCK: Final = ".lock"
"""How the names of claims end there."""

PART: Final = "@"
"""In the name of a claim, before a part of a scan. No folder is made under such a claim: where one
that a part belongs in is gone, the scan is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a claim, as it said of itself; empty where it has not yet."""

    host: str = ""
    pid: int = 0
    started: int = 0
    """When, in ticks since the machine was; 0 where the system does not tell."""
    mark: str = ""
    """Which of its claims it is, where the system does not tell that one was let go of."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "another process"

    @classmethod
    def here(cls, mark: str = "") -> Self:
        """This process."""
        started = _started(os.getpid())
        return cls(host=socket.gethostname(), pid=os.getpid(), started=started, mark=mark)

    @classmethod
    def parse(cls, said: bytes) -> Self:
        """What `line` of some process says; whatever else it may be says nothing."""
        try:
            values = json.loads(said[:1000])
            return cls(
                host=str(values["host"])[:100],
                pid=int(values["pid"]),
                started=int(values["started"]),
                mark=str(values.get("mark", ""))[:100],
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return cls()

    def line(self) -> bytes:
        """What it writes into its claims."""
        said = {"host": self.host, "pid": self.pid, "started": self.started}
        return json.dumps(said | ({"mark": self.mark} if self.mark else {})).encode()

    def is_dead_here(self) -> bool:
        """Whether it was a process of this machine and is no more."""
        if self.host != socket.gethostname() or not self.pid:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        # Numbers of processes are used again; in a container that was restarted, all of them.
        return 0 != self.started != _started(self.pid) != 0


def _started(pid: int) -> int:
    """When a process was started, by Linux's /proc; 0 where that does not tell."""
    try:
        # The name before the bracket may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


class Claim(Protocol):
    """The right of one process to write under a name; all that is written is written under one."""

    def write(self, files: Mapping[str, bytes]) -> None:
        """Give files these bytes. Each is whole at any instant, and all last when this returns.

        Raises:
            OSError: it cannot be done; some of the files may be as they were.
        """

    def delete(self, names: Iterable[str]) -> None:
        """Remove files, those that exist; it lasts when this returns.

        Raises:
            OSError: it cannot be done.
        """

    def rename(self, folder: str, to: str, order: Sequence[Sequence[str]]) -> None:
        """Give a folder in the root another name, which nothing has; it lasts when this returns.

        This happens at once where the place can do that. Elsewhere the files, all of them in
        `order`, are copied group by group, and then removed in the opposite order.

        Raises:
            OSError: it cannot be done.
        """

    def remove(self, folder: str, order: Sequence[Sequence[str]]) -> None:
        """Remove a folder in the root; it lasts when this returns.

        This happens at once where the place can do that. Elsewhere the files, all of them in
        `order`, are removed group by group, the last group first.

        Raises:
            OSError: it cannot be done.
        """

    def release(self) -> None:
        """Let go of the name, once. Whatever happens to the process, this happens too.

        Raises:
            OSError: something is left in `.writing`; the name is free for this process all the
                same, and the next claim of it, or `sweep`, tidies up.
        """


AnyClaim = TypeVar("AnyClaim", bound=Claim)


@contextmanager
def held(claim: AnyClaim) -> Iterator[AnyClaim]:
    """A claim that is let go of at the end of the block, however it ends."""
    with on_error(claim.release):
        yield claim
    claim.release()


class Storage(Protocol):
    """A place for the files of a store."""

    derived: Path | None
    """Folder for what can be worked out again from the store; None where there can be none."""

    place: str
    """Where it lies, in words that are true in any folder a process may be in."""

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None where there is none.

        Raises:
            OSError: it cannot be read.
        """

    def read_parts(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of a file from `begin` to `end` of each span, which lie within it.

        Raises:
            OSError: there is no such file or part, or it cannot be read.
        """

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""

    def names(self, folder: str) -> list[str]:
        """Every file under a folder, sorted."""

    def folders(self) -> list[str]:
        """The folders in the root, sorted, those left out that the storage keeps for itself."""

    def claim(self, name: str) -> Claim | Holder:
        """A claim on a name, or who holds it.

        Raises:
            OSError: the place cannot be written.
        """

    def waited_claim(self, name: str) -> AbstractContextManager[Claim]:
        """A claim as soon as nobody else holds it; released at the end of the block."""

    def claims(self, prefix: str) -> list[str]:
        """Claims whose name begins so, sorted, whether somebody holds them or died with them."""

    def sweep(self, prefix: str) -> None:
        """Remove what dead processes left of claims whose name begins so."""

    def zarr_store(self) -> Any:
        """The same place as Zarr reads it."""
