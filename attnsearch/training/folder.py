"""The folder of a training run, looked at before torch is there."""

from pathlib import Path
from typing import Final

from attnsearch.errors import CheckpointError

LATEST: Final = "checkpoint.pt"
"""The latest state, for resuming."""


def check_unused(folder: Path, *, resume: bool) -> None:
    """Refuse to begin a run where there is one.

    Raises:
        CheckpointError: the folder holds a run, and it is not to go on.
    """
    if (folder / LATEST).exists() and not resume:
        raise CheckpointError(f"{folder} already holds a run; pass --resume to continue it")
