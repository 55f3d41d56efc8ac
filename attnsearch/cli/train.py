"""`attnsearch train`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from attnsearch.cli import options
from attnsearch.errors import ConfigError
from attnsearch.intake import quote
from attnsearch.lookup import find_checkpoint
from attnsearch.progress import note


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


class _Phrases(StrEnum):
    SHORT = "short"
    ALL = "all"


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
    phrases: Annotated[
        _Phrases | None, typer.Option(help="Wordings of a relation; default: the task's.")
    ] = None,
    colour_dropout: Annotated[
        str | None,
        typer.Option(
            metavar="P | STEP:P,...",
            help="How often a colour word is left out: 0.5, or by step 0:0,6000:0.5.",
        ),
    ] = None,
    held_out_seed: Annotated[
        str | None,
        typer.Option(metavar="SEED | none", help="Which combinations are kept out of training."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="CKPT", help="Model to start with: a file, or one packaged."
        ),
    ] = None,
    objective: Annotated[_Objective, typer.Option(help="What is predicted.")] = _Objective.FLOW,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps in all.")] = 12_000,
    learning_rate_factor: Annotated[
        float | None, typer.Option(help="On both learning rates; 0.5 suits --from.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and noise.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: options.Device = "auto",
) -> None:
    """Train a diffusion transformer on the two-object relation task.

    The run's folder holds checkpoint.pt (for --resume), log.jsonl (loss, accuracies) and, at the
    end, model.pt. Ctrl-C saves first.

    Example: attnsearch train --encoder rtep --size femto --seed 0 --out runs/rtep-femto-seed0

    Example: attnsearch train --from rtep-atto-seed0 --size atto --colour-dropout 0.5 --out runs/a
    """
    from attnsearch.encoders import EncoderKind, EncoderSpec
    from attnsearch.training import ColourDropout, check_unused

    check_unused(out, resume=resume)
    dropout = None if colour_dropout is None else ColourDropout.read(_dropout(colour_dropout))
    if start is not None:
        find_checkpoint(start)
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
    from attnsearch.task.spec import PhraseSet
    from attnsearch.training import run

    experiment = experiments.Experiment(
        name=out.name,
        encoder=EncoderKind(encoder),
        encoder_source=encoder_source,
        encoder_dtype=encoder_dtype,
        size=size,
        task=task,
        phrases=None if phrases is None else PhraseSet(phrases),
        colour_dropout=dropout,
        held_out_seed=None if held_out_seed is None else _seed(held_out_seed),
        start=start,
        learning_rate_factor=learning_rate_factor,
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


def _dropout(text: str) -> Any:
    """A schedule as an experiment file has it: `0:0,6000:0.5` is [[0, 0.0], [6000, 0.5]]."""
    try:
        if ":" not in text:
            return float(text)
        stages = [stage.split(":") for stage in text.split(",")]
        return [[int(step), float(value)] for step, value in stages]
    except ValueError as error:
        raise ConfigError(
            f"--colour-dropout must be a probability, or STEP:PROBABILITY,..., not {quote(text)}"
        ) from error


def _seed(text: str) -> int | str:
    """A number, or the word for none, which is the experiment's to know."""
    try:
        return int(text)
    except ValueError:
        return text
