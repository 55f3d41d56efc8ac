"""What a command does when it is asked to stop: by Ctrl-C, by a scheduler, by a closed terminal."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Final, NoReturn

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_LAST_WORDS: Final = b"\nattnsearch: stopped at once; what was finished before is kept\n"


class Stopped(KeyboardInterrupt):
    """The program was asked to stop, and what runs may put its things in order."""

    def __init__(self, number: int) -> None:
        """`number` is that of the signal."""
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in the main thread at the first signal; end the process at the second.

    Nothing is lost by the second either, whatever it interrupts: files are whole at any instant.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    asked = False

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        nonlocal asked
        if asked:
            os.write(2, _LAST_WORDS)  # stderr, whose buffer may be busy
            os._exit(128 + number)
        asked = True
        raise Stopped(number)

    with ExitStack() as restore:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # What whoever started the program has it ignore, as `nohup` does, stays ignored.
            if handler is not signal.SIG_IGN:
                restored = signal.SIG_DFL if handler is None else handler
                restore.callback(signal.signal, number, restored)
                signal.signal(number, stop)
        yield
