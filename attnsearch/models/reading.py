"""Reading a file of tensors: `.safetensors`, or what `torch.save` wrote. Nothing in it is run.

What a file claims is weighed before any memory is taken for it. Whose tensors they are is the
business of `checkpoint` and `pixart`.
"""

import hashlib
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from safetensors import safe_open
from torch import Tensor

from attnsearch.errors import CheckpointError
from attnsearch.intake import one_line, open_regular
from attnsearch.intake.archive import ArchiveError
from attnsearch.intake.claims import MAX_TENSORS, ForeignError, inspect_torch_file

_PICKLE: Final = b"\x80"
"""How files begin that are a pickle and nothing else."""
_CONTAINER: Final = Path("/sys/fs/cgroup/memory.max")


def read_tensors(path: Path) -> tuple[Any, str]:
    """What a file of tensors holds, and its SHA-256.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or larger than the memory.
    """
    try:
        with open_regular(path) as file:
            size, memory = os.fstat(file.fileno()).st_size, _memory()
            if size > memory:
                raise CheckpointError(
                    f"{path} has {size / 2**30:.1f} GiB, and this machine a memory of "
                    f"{memory / 2**30:.1f} GiB"
                )
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return _unpack(file, path), digest
    except FileNotFoundError as error:
        raise CheckpointError(f"no such file: {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def _unpack(file: BinaryIO, path: Path) -> Any:
    if path.suffix != ".safetensors":
        _inspect(file, path)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused a moment later
            if path.suffix == ".safetensors":
                return _safe_tensors(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the readers raise almost anything
        raise CheckpointError(
            f"{path} is not a checkpoint, or it is truncated: {one_line(str(error), 200)}"
        ) from error


def _inspect(file: BinaryIO, path: Path) -> None:
    try:
        inspect_torch_file(file)
    except ForeignError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint, or would run code when loaded; refused: {error}"
        ) from error
    except ArchiveError as error:
        file.seek(0)
        if file.read(len(_PICKLE)) == _PICKLE:
            raise CheckpointError(
                f"{path} is not a checkpoint, or would run code when loaded; refused. If it is "
                "one that torch before 1.6 wrote, and you trust it, load and save it with the "
                "torch of today"
            ) from error
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from error


def _safe_tensors(file: BinaryIO) -> dict[str, Tensor]:
    # The library maps the file: only what is copied out of it takes memory. Opened by the number
    # of the open file, it is the one whose digest was taken.
    with safe_open(f"/dev/fd/{file.fileno()}", framework="pt") as tensors:
        names = tensors.keys()
        if len(names) > MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
        return {name: tensors.get_tensor(name).clone() for name in names}


def _memory() -> int:
    """Bytes of memory this process may use, be it in a container."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such file, or `max` in it
        memory = min(memory, int(_CONTAINER.read_text()))
    return memory
