"""The folder of a run: what its files are called, and whose they are.

    experiment.json    the experiment, so that no other is mixed in
    machine.json       the machine that trained and measured it
    checkpoint.pt      training: latest state
    model.pt           training: the finished model
    log.jsonl          training: losses and accuracies
    snapshots/         training: slim checkpoints on the way
    evaluation.json    accuracies by split and measure, with intervals
    maps.zarr          the scan
    ranking.json       every head with its relational score; the best head's score by step
    emergence.json     accuracies and scores of every snapshot

JSON files are whole or absent: the presence of one says that its stage is done.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from attnsearch import intake
from attnsearch.cleanup import placed
from attnsearch.errors import ConfigError
from attnsearch.experiments.spec import Experiment, parse_experiment, training_config
from attnsearch.models import load_checkpoint
from attnsearch.training import check_same_run

RECORD: Final = "experiment.json"
MACHINE: Final = "machine.json"
CHECKPOINT: Final = "checkpoint.pt"
MODEL: Final = "model.pt"
LOG: Final = "log.jsonl"
EVALUATION: Final = "evaluation.json"
MAPS: Final = "maps.zarr"
RANKING: Final = "ranking.json"
EMERGENCE: Final = "emergence.json"

_MAX_BYTES: Final = 64 * 2**20
"""Of one file; every head at a thousand snapshots has some 20 MiB."""


@contextmanager
def working_on(folder: Path) -> Iterator[None]:
    """Keep every other process from working on the run in a folder inside the `with` block.

    The system lets go of the lock when the process ends, however it ends.

    Raises:
        ConfigError: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another process works on the run in {folder}") from error
        yield
    finally:
        os.close(lock)


def claim(experiment: Experiment, folder: Path) -> None:
    """Make the folder this experiment's, if it is no other's.

    A run that `attnsearch train` left there is taken over if it is the experiment's training.

    Raises:
        AttnsearchError: the folder holds another experiment or another run.
    """
    if (folder / RECORD).exists():
        held = read_record(folder).table()
        ours = experiment.table()
        for key in [*ours, *held]:
            if held.get(key) != ours.get(key):
                raise ConfigError(
                    f"{folder} holds another experiment, with {key} {held.get(key)} instead of "
                    f"{ours.get(key)}; choose another folder"
                )
        return
    if (folder / CHECKPOINT).exists():
        _check_trained(experiment, folder)
    elif (folder / MODEL).exists():
        raise ConfigError(f"{folder} holds a model of unknown training; choose another folder")
    write_json(folder / RECORD, experiment.table())


def read_record(folder: Path) -> Experiment:
    """The experiment a folder belongs to.

    Raises:
        ConfigError: it belongs to none.
    """
    path = folder / RECORD
    if not path.exists():
        raise ConfigError(f"{folder} is no run of `attnsearch zoo train`: it has no {RECORD}")
    table = read_json(path)
    if not isinstance(table, dict):
        raise ConfigError(f"{path} is damaged: it holds no table")
    return parse_experiment(table, path)


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ConfigError: the file cannot be read, or is no JSON.
    """
    try:
        return intake.read_json(path, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged, remove it and run again: {error}") from error


def read_result(path: Path) -> bytes:
    """The bytes of a result.

    Raises:
        ConfigError: the file cannot be read, or should be JSON and is none.
    """
    if path.suffix == ".json":
        read_json(path)
    try:
        return intake.read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with placed(path, partial), partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _check_trained(experiment: Experiment, folder: Path) -> None:
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    check_same_run(training_config(experiment), checkpoint)
    finished = (folder / MODEL).exists()
    if checkpoint.step > experiment.steps or (finished and checkpoint.step < experiment.steps):
        raise ConfigError(
            f"{folder} holds a run of {checkpoint.step} steps, not {experiment.steps}; "
            "choose another folder"
        )
