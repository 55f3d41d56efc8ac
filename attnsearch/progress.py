"""News and progress bars for whoever waits: on a terminal's stderr, or in a notebook's output."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attnsearch.intake import one_line


def note(message: str) -> None:
    """One line of news on stderr."""
    print(one_line(message), file=sys.stderr)


@contextmanager
def progress(
    description: str, total: int, unit: str, *, lasting: bool = True
) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left; yields the function that advances it.

    It is shown on a terminal and in a notebook; a log file has no use for it. One that is not
    `lasting` is gone when it is full.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        transient=not lasting,
        disable=not (console.is_terminal or console.is_jupyter),
    )
    with bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            if speed is not None:
                bar.update(task, rate=f"{speed:,.0f} {unit}/s")

        yield advance
