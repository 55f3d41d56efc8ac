"""Work of many tasks: it runs where the user says, and can be watched."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attnsearch.cli.console import note, progress

if TYPE_CHECKING:
    from attnsearch.aggregate import Aggregator
    from attnsearch.scheduling import Runner


@contextmanager
def opened_runner(scheduler: str) -> "Iterator[Runner]":
    """What runs tasks at the named scheduler; tells where a cluster shows them.

    Raises:
        ConfigError: there is no such scheduler, or it does not answer.
    """
    from attnsearch.scheduling import Scheduler

    with Scheduler.parse(scheduler).open() as runner:
        if runner.dashboard:
            note(f"tasks can be watched at {runner.dashboard}")
        yield runner


@contextmanager
def opened_aggregator(scheduler: str) -> "Iterator[Aggregator]":
    """What reads scans at the named scheduler, behind a bar; raises as `opened_runner` does."""
    from attnsearch.aggregate import Aggregator

    with opened_runner(scheduler) as runner:
        yield Aggregator(
            runner=runner, watch=lambda pieces: progress("reading", pieces, "pieces", lasting=False)
        )
