"""`attnsearch train`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import note


class _Encoder(StrEnum):
    RTE = "rte"
    RTEP = "rtep"
    MINILM = "minilm"
    T5 = "t5"
    CLIP = "clip"


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
    encoder_source: Annotated[
        str, typer.Option(help="Folder or hub name of a T5 or CLIP encoder.")
    ] = "",
    encoder_dtype: Annotated[
        str, typer.Option(help="What T5, CLIP and MiniLM compute in: float32 or bfloat16.")
    ] = "float32",
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
    from attnsearch.encoders import EncoderKind, EncoderSpec
    from attnsearch.training import check_unused

    check_unused(out, resume=resume)
    EncoderSpec(  # refuses what cannot be, before torch is imported; its sizes come later
        kind=EncoderKind(encoder),
        channels=2,
        text_length=1,
        source=encoder_source,
        dtype=encoder_dtype,
    )
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from attnsearch import experiments
    from attnsearch.devices import named_device
    from attnsearch.models import Objective
    from attnsearch.training import run

    experiment = experiments.Experiment(
        name=out.name,
        encoder=EncoderKind(encoder),
        encoder_source=encoder_source,
        encoder_dtype=encoder_dtype,
        size=size,
        task=task,
        objective=Objective(objective),
        steps=steps,
        seed=seed,
    )
    config = experiments.training_config(experiment)
    target = named_device(device)
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
            evaluate=lambda checkpoint: experiments.quick_accuracies(
                checkpoint, experiment.sampler, target
            ),
            report=lambda now: bar.update(
                shown,
                completed=now.step,
                news=f"loss {now.loss:.4f}  {now.steps_per_second:.1f} steps/s",
            ),
        )
    note(f"trained model: {out / 'model.pt'}")
