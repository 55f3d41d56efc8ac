"""`attnsearch train`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import note

if TYPE_CHECKING:
    from attnsearch.encoders import EncoderSpec
    from attnsearch.models import Checkpoint
    from attnsearch.training import TrainingConfig


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
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from attnsearch.training import run

    config = training_config(
        encoder, size, task, objective, steps, seed, source=encoder_source, dtype=encoder_dtype
    )
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
    encoder: str,
    size: str,
    task: str,
    objective: str,
    steps: int,
    seed: int,
    *,
    source: str = "",
    dtype: str = "float32",
) -> "TrainingConfig":
    """The run the options describe.

    Random token embeddings are 64 wide, 4096 under the paper's task; pretrained ones are as wide
    as their model, and long enough for every wording of a relation.

    Raises:
        AttnsearchError: the encoder cannot be read, or the options contradict each other.
    """
    from dataclasses import asdict

    from attnsearch.models import SIZES, DiTConfig, Objective
    from attnsearch.task.spec import PRESETS
    from attnsearch.training import TrainingConfig

    spec = PRESETS[task]
    text = _encoder_spec(encoder, task, source, dtype)
    return TrainingConfig(
        model=DiTConfig(
            image_side=spec.canvas,
            patch=16 if task == "paper" else 4,
            text_channels=text.channels,
            text_length=text.text_length,
            **asdict(SIZES[size]),
        ),
        encoder=text,
        task=spec,
        objective=Objective(objective),
        steps=steps,
        seed=seed,
    )


def _encoder_spec(encoder: str, task: str, source: str, dtype: str) -> "EncoderSpec":
    from dataclasses import replace

    from attnsearch.encoders import EncoderKind, EncoderSpec, fit_pretrained
    from attnsearch.task.captions import grid_captions
    from attnsearch.task.spec import PRESETS, PhraseSet

    kind, spec = EncoderKind(encoder), PRESETS[task]
    if kind.is_random:
        return EncoderSpec(
            kind=kind,
            channels=4096 if task == "paper" else 64,
            text_length=spec.text_length,
            source=source,
            dtype=dtype,
        )
    wordings = grid_captions(replace(spec, phrases=PhraseSet.ALL))
    return fit_pretrained(kind, source, dtype, wordings, at_least=spec.text_length)


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
