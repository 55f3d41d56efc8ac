"""How large a network grows, watched while it is made: the one module here that needs torch."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn
from torch.nn.modules import module as registry

PER_BYTE: Final = 4
"""Numbers of a network for each byte of its files: a number has a byte at least, and a weight is
counted whenever it is set, in an outline, when it is made, and when it is read."""
BESIDES: Final = 2**22
"""Numbers that no file accounts for, such as positions."""
MAX_PARTS: Final = 30_000
"""Modules, weights and buffers; the largest models have three thousand, made twice."""


class TooLargeError(ValueError):
    """A network is larger than it may be."""


@contextmanager
def within_weights(folder: Path) -> Iterator[None]:
    """No network made within may be far larger than the files of weights in a folder.

    Raises:
        TooLargeError: in whatever makes the network, as soon as it does.
    """
    files = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
    room = BESIDES + PER_BYTE * sum(path.stat().st_size for path in files)
    parts = 0

    def count(module: nn.Module, name: str, part: Any) -> None:
        nonlocal parts, room
        del module
        parts += 1
        room -= part.numel() if isinstance(part, Tensor) else 0
        if room < 0 or parts > MAX_PARTS:
            raise TooLargeError(f"with its {name} it is far larger than its files of weights")

    with ExitStack() as restore:
        for register in (
            registry.register_module_parameter_registration_hook,
            registry.register_module_buffer_registration_hook,
            registry.register_module_module_registration_hook,
        ):
            restore.callback(register(count).remove)
        yield
