"""`attnsearch train`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import note

if TYPE_CHECKING:
    from attnsearch.models import Checkpoint
    from attnsearch.training import TrainingConfig


class _Encoder(StrEnum):
    RTE = "rte"
    RTEP = "rtep"


class _Size(StrEnum):
    B = "B"
    S = "S"
    MINI = "mini"
    MICRO = "micro"
    NANO = "nano"
    PICO = "pico"
    FEMTO = "femto"
    ATTO = "atto"


class _Task(StrEnum):
    SMALL = "small"
    PAPER = "paper"


class _Objective(StrEnum):
    FLOW = "flow"
    EPSILON = "epsilon"


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run; made if need be.")],
    encoder: Annotated[_Encoder, typer.Option(help="Prompt encoding.")] = _Encoder.RTEP,
    size: Annotated[_Size, typer.Option(help="Network size; the last three suit a CPU.")] = (
        _Size.FEMTO
    ),
    task: Annotated[_Task, typer.Option(help="Task preset: 32 px or 128 px.")] = _Task.SMALL,
    objective: Annotated[_Objective, typer.Option(help="What is predicted.")] = _Objective.FLOW,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps in all.")] = 12_000,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and noise.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: options.Device = "auto",
) -> None:
    """Train a diffusion transformer on the two-object relation task.

    The run's folder holds checkpoint.pt (for --resume), log.jsonl (loss, accuracies) and, at the
    end, model.pt. Ctrl-C saves first.

    Example: attnsearch train --encoder rtep --size femto --seed 0 --out runs/rtep-femto-seed0
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from attnsearch.training import run

    config = training_config(encoder, size, task, objective, steps, seed)
    target = options.torch_device(device)
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("step {task.completed:,} of {task.total:,}"),
        BarColumn(),
        TextColumn("{task.fields[news]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,  # a log file has no use for a bar
    )
    with bar:
        shown = bar.add_task("", total=steps, news="")
        run.train(
            config,
            out,
            target,
            resume=resume,
            evaluate=lambda checkpoint: _accuracies(checkpoint, str(target)),
            report=lambda now: bar.update(
                shown,
                completed=now.step,
                news=f"loss {now.loss:.4f}  {now.steps_per_second:.1f} steps/s",
            ),
        )
    note(f"trained model: {out / 'model.pt'}")


def training_config(
    encoder: str, size: str, task: str, objective: str, steps: int, seed: int
) -> "TrainingConfig":
    """The run the options describe; token embeddings are 64 wide, 4096 under the paper's task."""
    from dataclasses import asdict

    from attnsearch.encoders import EncoderKind, EncoderSpec
    from attnsearch.models import SIZES, DiTConfig, Objective
    from attnsearch.task.spec import PRESETS
    from attnsearch.training import TrainingConfig

    spec = PRESETS[task]
    channels = 4096 if task == "paper" else 64
    patch = 16 if task == "paper" else 4
    return TrainingConfig(
        model=DiTConfig(
            image_side=spec.canvas,
            patch=patch,
            text_channels=channels,
            text_length=spec.text_length,
            **asdict(SIZES[size]),
        ),
        encoder=EncoderSpec(
            kind=EncoderKind(encoder), channels=channels, text_length=spec.text_length
        ),
        task=spec,
        objective=Objective(objective),
        steps=steps,
        seed=seed,
    )


def _accuracies(checkpoint: "Checkpoint", device: str) -> dict[str, float]:
    """Accuracies for the log, from one seed under every prompt: a few seconds, no intervals."""
    from attnsearch.evaluation import evaluate
    from attnsearch.sampling import SamplerConfig

    evaluation = evaluate(
        checkpoint, seeds=1, sampler=SamplerConfig(), device=options.torch_device(device)
    )
    return {
        f"{split}_{name}": round(accuracy.value, 4)
        for split, accuracies in evaluation.accuracies.items()
        for name, accuracy in accuracies.items()
    }
