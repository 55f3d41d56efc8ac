"""Packs a finished run for others: small enough for a repository, complete enough to be checked."""

import hashlib
import shutil
from pathlib import Path

from attnsearch import zoo
from attnsearch.errors import ConfigError
from attnsearch.experiments import folder as files
from attnsearch.experiments.execute import is_finished
from attnsearch.models import load_checkpoint, save_checkpoint


def publish(run: Path, folder: Path) -> Path:
    """Write a finished run's slim checkpoint and results into a folder; returns the checkpoint.

    The files have the experiment's name; maps, training state and snapshots stay behind.

    Raises:
        AttnsearchError: the run is not finished, or a file cannot be used.
    """
    experiment = files.read_record(run)
    if not is_finished(experiment, run):
        raise ConfigError(f"{run} is not finished; run `attnsearch zoo train` on it first")
    checkpoint = load_checkpoint(run / files.MODEL)
    slim = checkpoint.slim()
    slim.build()  # refuses weights that half precision cannot hold
    path = folder / f"{experiment.name}.pt"
    save_checkpoint(slim, path)
    copied = {
        "log": files.LOG,
        "evaluation": files.EVALUATION,
        "ranking": files.RANKING,
        "emergence": files.EMERGENCE,
    }
    for part, name in copied.items():
        zoo.beside(path, part).unlink(missing_ok=True)  # of an earlier run of that name
        if (run / name).exists():
            shutil.copyfile(run / name, zoo.beside(path, part))
    config = experiment.table() | {
        "parameters": sum(tensor.numel() for tensor in slim.average.values()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "machine": files.read_json(run / files.MACHINE),
    }
    files.write_json(zoo.beside(path, "config"), config)
    return path
