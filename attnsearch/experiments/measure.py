"""What is measured of a checkpoint, as plain values that JSON can hold."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from attnsearch import metrics, scanning
from attnsearch.evaluation import evaluate
from attnsearch.experiments.spec import Experiment
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.store import open_scan
from attnsearch.task.captions import exam_captions

METRIC = "relational"


def quick_accuracies(
    checkpoint: Checkpoint, sampler: SamplerConfig, device: torch.device
) -> dict[str, float]:
    """Accuracies from one seed under every prompt, by `split_measure`: seconds, no intervals.

    Captions that leave out a colour have the short phrase of each relation only.
    """
    prompts = exam_captions(checkpoint.task, quick=True)
    evaluation = evaluate(checkpoint, seeds=1, sampler=sampler, device=device, prompts=prompts)
    return {
        f"{split}_{name}": round(accuracy.value, 4)
        for split, accuracies in evaluation.accuracies.items()
        for name, accuracy in accuracies.items()
    }


def accuracies(
    checkpoint: Checkpoint,
    experiment: Experiment,
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """The final accuracies, keyed by split, measure and field."""
    return evaluate(
        checkpoint,
        seeds=experiment.evaluation_seeds,
        sampler=experiment.sampler,
        device=device,
        advance=advance,
    ).table()


def plan_grid_scan(
    subject: scanning.DiTSubject,
    experiment: Experiment,
    *,
    name: str,
    seeds: int,
) -> scanning.ScanPlan:
    """A scan of the task's whole prompt grid, sampled as the experiment says."""
    return scanning.plan_scan(
        subject,
        name=name,
        prompts=scanning.read_captions("grid", subject.checkpoint.task),
        seeds=seeds,
        sampler=experiment.sampler,
    )


def ranking(store: Path) -> dict[str, Any]:
    """Every head of the one scan of a store, best first, and the best head's score by step."""
    scan = open_scan(store)
    rows = _ranked(scan)
    best = rows[0]
    return {
        "metric": METRIC,
        "samples": scan.sizes["sample"],
        "heads": rows,
        "best_head_by_step": list(best["profile"]),
    }


def head_scores(store: Path) -> list[dict[str, Any]]:
    """The score of every head of the one scan of a store, best first."""
    return _ranked(open_scan(store))


def _ranked(scan: xr.Dataset) -> list[dict[str, Any]]:
    rows = [asdict(row) for row in metrics.rank({"": scan}, METRIC)]
    return [{key: value for key, value in row.items() if key != "model"} for row in rows]
