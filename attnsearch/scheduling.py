"""Where independent tasks run: threads of this process, processes of this machine, or a cluster.

Tasks are Dask's. What they compute does not depend on where they run, nor do its bits as long as
it is put together in a fixed order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from attnsearch.cleanup import on_error
from attnsearch.errors import AttnsearchError, ConfigError

if TYPE_CHECKING:
    from dask.delayed import Delayed

THREADS: Final = "threads"
PROCESSES: Final = "processes"
_PROTOCOLS: Final = ("tcp://", "tls://", "ucx://", "ws://", "wss://", "inproc://")
_CONNECT_SECONDS: Final = 10

Advance = Callable[[int], None]
"""Is told how many more tasks are done."""


class Runner(Protocol):
    """Runs tasks somewhere."""

    dashboard: str
    """Address of a page that shows them running; empty where there is none."""

    def run(self, tasks: "Sequence[Delayed]", whole: "Delayed", advance: Advance) -> Any:
        """What `whole` computes, which is made of `tasks`.

        Raises:
            AttnsearchError: a task raised it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """A choice of where tasks run."""

    kind: str = THREADS
    """`threads`, `processes`, an address like tcp://host:8786, or a scheduler file's path."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The scheduler that a command line names.

        Raises:
            ConfigError: it is none.
        """
        if text in (THREADS, PROCESSES) or text.startswith(_PROTOCOLS) or Path(text).is_file():
            return cls(kind=text)
        raise ConfigError(
            f"no scheduler is called {text!r}; it is threads, processes, the address of a Dask "
            "scheduler such as tcp://host:8786, or a scheduler file"
        )

    @property
    def is_cluster(self) -> bool:
        """Whether tasks leave this machine, or may."""
        return self.kind not in (THREADS, PROCESSES)

    @contextmanager
    def open(self) -> Iterator[Runner]:
        """What runs the tasks, until the end of the block.

        Raises:
            ConfigError: a cluster is asked for and cannot be reached, or its library is missing.
        """
        if not self.is_cluster:
            yield _LocalRunner(self.kind)
            return
        try:
            from distributed import Client
        except ImportError as error:
            raise ConfigError(
                f'{self.kind} needs dask.distributed: pip install "attnsearch[distributed]"'
            ) from error
        named = (
            {"address": self.kind}
            if self.kind.startswith(_PROTOCOLS)
            else {"scheduler_file": self.kind}
        )
        try:
            client = Client(**named, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"no Dask scheduler answers at {self.kind}") from error
        with client:
            yield _ClusterRunner(client)


class _LocalRunner:
    dashboard = ""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def run(self, tasks: "Sequence[Delayed]", whole: "Delayed", advance: Advance) -> Any:
        from dask import multiprocessing, threaded
        from dask.base import compute
        from dask.callbacks import Callback
        from threadpoolctl import threadpool_limits

        keys = {task.key for task in tasks}

        def finished(key: Any, *_: Any) -> None:
            if key in keys:
                advance(1)

        # Not by name, for which Dask would import all of distributed. Processes are given one task
        # at a time: by default they get six, whatever they are.
        by_processes = partial(multiprocessing.get, chunksize=1)
        get = by_processes if self._kind == PROCESSES else threaded.get
        # Threads of its own that a linear algebra library starts only take turns with these.
        with Callback(posttask=finished), threadpool_limits(1, user_api="blas"):
            (result,) = compute(whole, scheduler=get, optimize_graph=False)
        return result


THREADED: Final[Runner] = _LocalRunner(THREADS)
"""Runs tasks in threads of this process."""


class _ClusterRunner:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.dashboard = str(client.dashboard_link or "")

    def run(self, tasks: "Sequence[Delayed]", whole: "Delayed", advance: Advance) -> Any:
        from distributed import KilledWorker, as_completed
        from distributed.client import FutureCancelledError

        *parts, last = self._client.compute([*tasks, whole], optimize_graph=False)
        with on_error(lambda: self._client.cancel([*parts, last])):
            try:
                for part in as_completed(parts, loop=self._client.loop):
                    if part.status == "error":
                        part.result()  # raises what the task raised
                    part.release()  # of its result only what `whole` is made of is still needed
                    advance(1)
                return last.result()
            except (KilledWorker, FutureCancelledError) as error:
                raise AttnsearchError(f"the cluster gave up: {error}") from error
