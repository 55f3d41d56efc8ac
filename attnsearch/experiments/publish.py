"""Packs a finished run for others: small enough for a repository, complete enough to be checked."""

import hashlib
from pathlib import Path
from typing import Final

from attnsearch import zoo
from attnsearch.errors import ConfigError
from attnsearch.experiments import folder as files
from attnsearch.experiments.execute import is_finished
from attnsearch.models import load_checkpoint, save_checkpoint

_COPIED: Final = {
    "log": files.LOG,
    "evaluation": files.EVALUATION,
    "ranking": files.RANKING,
    "emergence": files.EMERGENCE,
}


def publish(run: Path, folder: Path) -> Path:
    """Write a finished run's slim checkpoint and results into a folder; returns the checkpoint.

    The files have the experiment's name; maps, training state and snapshots stay behind.

    Raises:
        AttnsearchError: the run is not finished, or a file cannot be used.
    """
    experiment = files.read_record(run)
    if not is_finished(experiment, run):
        raise ConfigError(f"{run} is not finished; run `attnsearch zoo train` on it first")
    # Everything is read before anything is written.
    parts = {part: run / name for part, name in _COPIED.items() if (run / name).exists()}
    contents = {part: files.read_result(source) for part, source in parts.items()}
    machine = files.read_json(run / files.MACHINE)
    checkpoint = load_checkpoint(run / files.MODEL)
    slim = checkpoint.slim()
    slim.build()  # refuses weights that half precision cannot hold
    path = folder / f"{experiment.name}.pt"
    save_checkpoint(slim, path)
    for part in _COPIED:
        zoo.beside(path, part).unlink(missing_ok=True)  # of an earlier run of that name
        if part in contents:
            zoo.beside(path, part).write_bytes(contents[part])
    config = experiment.table() | {
        "parameters": sum(tensor.numel() for tensor in slim.average.values()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "machine": machine,
    }
    if slim.origin is not None:  # a path would mean nothing elsewhere
        config |= {"from": slim.origin.name, "from_sha256": slim.origin.digest}
    files.write_json(zoo.beside(path, "config"), config)
    return path
