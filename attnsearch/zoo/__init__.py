"""Demonstration models that come with the package: checkpoint, training log, evaluation."""

from pathlib import Path


def packaged() -> list[Path]:
    """Checkpoint files of the packaged models, by name."""
    return sorted(Path(__file__).parent.glob("*.pt"))
