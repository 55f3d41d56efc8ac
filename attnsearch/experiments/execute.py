"""Runs one experiment in one folder: train, evaluate, scan, rank, then measure the snapshots.

A stage whose result is there is skipped, and one that was stopped goes on where it stopped; what
is in the folder is told by `folder`. Nothing is printed here: news goes to a function.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from attnsearch import scanning
from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.experiments import folder as files
from attnsearch.experiments import measure
from attnsearch.experiments.spec import Experiment, training_config
from attnsearch.models import load_checkpoint
from attnsearch.task.captions import exam_captions
from attnsearch.training import run
from attnsearch_kernels.machine import describe_machine

_SNAPSHOT_SCAN_SEEDS: Final = 2


@dataclass(frozen=True, slots=True)
class News:
    """Where a running experiment stands."""

    stage: str
    """train, evaluate, scan, rank or emergence."""
    done: int
    total: int
    text: str = ""


Report = Callable[[News], None]


def run_experiment(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    report: Report = lambda _: None,
) -> None:
    """Bring a folder to the end of an experiment, from wherever it stands.

    Raises:
        AttnsearchError: the folder holds another experiment, another process works on it, or a
            stage cannot be done.
        KeyboardInterrupt: the user stopped it; run again, it goes on.
    """
    with files.working_on(folder):
        _run_stages(experiment, folder, device, report)


def _run_stages(experiment: Experiment, folder: Path, device: torch.device, report: Report) -> None:
    files.claim(experiment, folder)
    if not (folder / files.MACHINE).exists():
        files.write_json(folder / files.MACHINE, describe_machine())
    if not (folder / files.MODEL).exists():
        _train(experiment, folder, device, report)
    if not (folder / files.EVALUATION).exists():
        _evaluate(experiment, folder, device, report)
    if not (folder / files.RANKING).exists():
        _scan(experiment, folder, device, report)
        report(News("rank", 0, 1))
        files.write_json(folder / files.RANKING, measure.ranking(folder / files.MAPS))
        report(News("rank", 1, 1))
    if experiment.snapshots:
        _follow(experiment, folder, device, report)


def is_finished(experiment: Experiment, folder: Path) -> bool:
    """Whether `run_experiment` would find nothing left to do."""
    results = (files.RECORD, files.MACHINE, files.MODEL, files.EVALUATION, files.RANKING)
    if not all((folder / name).exists() for name in results):
        return False
    if files.read_record(folder) != experiment:
        return False
    return len(_followed(folder)) == experiment.snapshots


def _train(experiment: Experiment, folder: Path, device: torch.device, report: Report) -> None:
    report(News("train", 0, experiment.steps))
    run.train(
        training_config(experiment),
        folder,
        device,
        resume=True,
        evaluate=lambda now: measure.quick_accuracies(now, experiment.sampler, device),
        report=lambda now: report(
            News(
                "train",
                now.step,
                experiment.steps,
                f"loss {now.loss:.4f}  {now.steps_per_second:.1f} steps/s",
            )
        ),
    )


def _evaluate(experiment: Experiment, folder: Path, device: torch.device, report: Report) -> None:
    images = len(exam_captions(experiment.task_spec())) * experiment.evaluation_seeds
    accuracies = measure.accuracies(
        load_checkpoint(folder / files.MODEL),
        experiment,
        device,
        _counter("evaluate", images, report),
    )
    files.write_json(folder / files.EVALUATION, accuracies)


def _scan(experiment: Experiment, folder: Path, device: torch.device, report: Report) -> None:
    subject = scanning.DiTSubject(load_checkpoint(folder / files.MODEL), device)
    plan = measure.plan_grid_scan(
        subject, experiment, name=experiment.name, seeds=experiment.scan_seeds
    )
    advance = _counter("scan", plan.layout.maps, report)
    scanning.execute_plan(plan, subject, folder / files.MAPS, advance)


def _follow(experiment: Experiment, folder: Path, device: torch.device, report: Report) -> None:
    """Measure the snapshots not measured yet; each is written down when it is done."""
    followed = _followed(folder)
    steps = training_config(experiment).snapshot_steps
    for step in steps[len(followed) :]:
        report(News("emergence", len(followed), len(steps)))
        followed.append(_snapshot_facts(experiment, folder, step, device))
        files.write_json(folder / files.EMERGENCE, followed)
        report(News("emergence", len(followed), len(steps)))


def _followed(folder: Path) -> list[dict[str, Any]]:
    path = folder / files.EMERGENCE
    followed = files.read_json(path) if path.exists() else []
    if not isinstance(followed, list) or not all(isinstance(facts, dict) for facts in followed):
        raise ConfigError(f"{path} is damaged, remove it and run again: it holds no snapshots")
    return followed


def _snapshot_facts(
    experiment: Experiment, folder: Path, step: int, device: torch.device
) -> dict[str, Any]:
    path = run.snapshot_path(folder, step)
    if not path.exists():
        raise CheckpointError(f"the snapshot {path} is missing; remove {folder} to train again")
    snapshot = load_checkpoint(path)
    subject = scanning.DiTSubject(snapshot, device)
    plan = measure.plan_grid_scan(subject, experiment, name=path.stem, seeds=_SNAPSHOT_SCAN_SEEDS)
    store = path.with_suffix(".zarr")
    scanning.execute_plan(plan, subject, store)
    facts = {
        "step": step,
        "accuracies": measure.quick_accuracies(snapshot, experiment.sampler, device),
        "heads": measure.head_scores(store),
    }
    shutil.rmtree(store)
    return facts


def _counter(stage: str, total: int, report: Report) -> Callable[[int], None]:
    """The function that is told how much more of a stage is done, and reports it."""
    done = 0
    report(News(stage, done, total))

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(News(stage, done, total))

    return advance
