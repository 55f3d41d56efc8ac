"""Experiments of a few steps, and one that went all the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from attnsearch.encoders import EncoderKind
from attnsearch.experiments import Experiment, run_experiment
from attnsearch.models import SIZES, DiTSize


@pytest.fixture(scope="session", autouse=True)
def tiny_size() -> Iterator[None]:
    """A size called `tiny`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", DiTSize(depth=1, width=32, heads=2, mlp_ratio=1.0))
        yield


@pytest.fixture(scope="session")
def experiment(tiny_size: None) -> Experiment:
    """Three steps of training, two snapshots of it, two sampling steps per image."""
    return Experiment(
        name="tiny-seed0",
        encoder=EncoderKind.RTEP,
        size="tiny",
        seed=0,
        steps=3,
        snapshots=2,
        evaluation_seeds=1,
        scan_seeds=1,
        sampling_steps=2,
    )


@pytest.fixture(scope="session")
def finished(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that experiment; not to be changed."""
    import torch

    folder = tmp_path_factory.mktemp("runs") / experiment.name
    run_experiment(experiment, folder, torch.device("cpu"))
    return folder
