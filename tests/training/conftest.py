"""A training run small enough to take a few hundred steps of in a test."""

from dataclasses import replace

import pytest

from attnsearch.models import Checkpoint
from attnsearch.training import TrainingConfig


@pytest.fixture(scope="session")
def tiny_run(tiny_checkpoint: Checkpoint) -> TrainingConfig:
    """Twelve steps of a one-layer model."""
    return TrainingConfig(
        model=replace(tiny_checkpoint.model, depth=1),
        encoder=tiny_checkpoint.encoder,
        task=tiny_checkpoint.task,
        steps=12,
        batch=8,
        warmup=3,
        evaluate_every=6,
        save_every=4,
    )
