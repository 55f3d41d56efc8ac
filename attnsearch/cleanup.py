"""Letting go of what was acquired, also when something fails on the way. Imports nothing of ours.

Where several things are let go of in a row, `contextlib.ExitStack` does it: every one has its turn
whatever becomes of the others. Here is what it lacks: an error is told before one of cleaning up
after it, and a file takes its place whole or not at all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path


@contextmanager
def on_error(undo: Callable[[], object]) -> Iterator[None]:
    """Undo something if the block fails; the block's error is told, whatever becomes of that."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            undo()
        raise


@contextmanager
def placed(path: Path, unplaced: Path) -> Iterator[Path]:
    """A file to write inside the block, in the folder of `path`, whose place it then takes.

    If the block fails, the file is removed, and what was at `path` stays.
    """
    with on_error(partial(unplaced.unlink, missing_ok=True)):
        yield unplaced
        unplaced.replace(path)
