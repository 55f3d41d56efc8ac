"""Peak memory of one piece of work, measured in a process of its own.

The peak is the kernel's high-water mark of this process image. `ru_maxrss` would not do: Linux
lets a new process inherit the mark of the one that started it.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

_STATUS: Final = Path("/proc/self/status")
_RESET: Final = Path("/proc/self/clear_refs")

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def peak_growth(work: Callable[[], object]) -> int:
    """Bytes by which the process outgrew, while it did the work, its size when the work began."""
    if not _RESET.exists():
        raise SystemExit("peak memory is read from /proc, which only Linux has")
    _RESET.write_text("5", encoding="ascii")  # sets the high-water mark to the present size
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def in_fresh_process(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """What a function of a script returns in a new interpreter, with nothing left over in it."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _status(field: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kibibytes) * 1024
