"""News and progress bars for whoever waits: on a terminal's stderr, or in a notebook's output."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from time import monotonic
from typing import Final

from attnsearch.intake import one_line

_NOTEBOOK_SECONDS: Final = 0.2
"""Between two pictures of a bar in a notebook, each of which is a message to the browser."""


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

    console = Console(stderr=True)
    bar = _in_notebook if console.is_jupyter else _on_terminal
    with bar(description, total, unit, lasting=lasting) as advance:
        yield advance


@contextmanager
def _on_terminal(
    description: str, total: int, unit: str, *, lasting: bool
) -> Iterator[Callable[[int], None]]:
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
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            if speed is not None:
                bar.update(task, rate=f"{speed:,.0f} {unit}/s")

        yield advance


@contextmanager
def _in_notebook(
    description: str, total: int, unit: str, *, lasting: bool
) -> Iterator[Callable[[int], None]]:
    # Not rich's own, which needs ipywidgets and shows nothing without.
    from IPython.display import HTML, display

    begun = monotonic()
    done, shown = 0, begun

    def picture() -> HTML:
        spent = monotonic() - begun
        speed = f", {done / spent:,.0f} {unit}/s" if spent > 0 and done else ""
        text = escape(f"{description}: {done:,} of {total:,} {unit}{speed}")
        return HTML(f'<progress value="{done}" max="{max(total, 1)}"></progress> {text}')

    place = display(picture(), display_id=True)

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        if (now := monotonic()) - shown >= _NOTEBOOK_SECONDS:
            shown = now
            place.update(picture())

    try:
        yield advance
    finally:
        place.update(picture() if lasting else HTML(""))
