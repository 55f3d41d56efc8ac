"""One file per model: weights, what they were trained on, and how far.

Our own format is read and written, the original one of PixArt-alpha is read. How a file gives up
its tensors without being run or believed is the business of `reading`; here every part is
validated before it is used.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from attnsearch.cleanup import placed
from attnsearch.encoders import EncoderKind, EncoderSpec
from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.intake import one_line, quote
from attnsearch.lookup import find_checkpoint
from attnsearch.models.dit import DiT, DiTConfig
from attnsearch.models.origin import Origin
from attnsearch.models.pixart import convert_pixart, find_pixart, infer_config
from attnsearch.models.reading import read_tensors
from attnsearch.task.spec import PRESETS, Layout, PhraseSet, TaskSpec

FORMAT: Final = "attnsearch-dit"
VERSION: Final = 1
LATENT_SCALE: Final = 8
"""Pixels of an image along one side of a latent cell, in the VAE of every PixArt-alpha model."""


class Objective(StrEnum):
    """What the network is trained to predict."""

    FLOW = "flow"
    """Rectified flow: the velocity noise - image, on straight paths."""
    EPSILON = "epsilon"
    """The noise of a 1000-step DDPM with linear betas, as in the paper."""


@dataclass(kw_only=True)
class Checkpoint:
    """A model with its provenance."""

    model: DiTConfig
    encoder: EncoderSpec
    task: TaskSpec
    objective: Objective
    step: int
    """Optimiser steps taken."""
    weights: dict[str, Tensor]
    """Weights as last trained; empty in the slim form."""
    average: dict[str, Tensor]
    """Exponential moving average of the weights; what is sampled from."""
    metrics: list[dict[str, float]] = field(default_factory=list)
    """Evaluations so far, oldest first."""
    training_state: dict[str, Any] | None = None
    """What a resumed training needs besides; absent from a published checkpoint."""
    digest: str = ""
    """SHA-256 of the file it was read from."""
    origin: Origin | None = None
    """The model its training began with; None if it began at random."""
    control: bool = False
    """Whether the weights are `shuffled`."""

    def build(self) -> DiT:
        """The averaged model, ready to sample from.

        Raises:
            CheckpointError: the weights do not fit the sizes, or are not finite.
        """
        check_fit(self.model, self.average)
        model = DiT(self.model)
        model.load_state_dict({name: t.float() for name, t in self.average.items()})
        broken = [name for name, t in model.state_dict().items() if not t.isfinite().all()]
        if broken:
            raise CheckpointError(f"weight {broken[0]} holds NaN or infinity")
        return model.eval().requires_grad_(requires_grad=False)

    def slim(self) -> "Checkpoint":
        """The form to publish: the averaged weights alone, in half precision.

        About a quarter of the bytes of a checkpoint with both sets of weights; it is built,
        evaluated and scanned like any other, and cannot be resumed.
        """
        halved = {name: tensor.half() for name, tensor in self.average.items()}
        return replace(self, weights={}, average=halved, training_state=None, digest="")

    def shuffled(self, seed: int = 0) -> "Checkpoint":
        """A control: in every tensor the same numbers in random order, so that nothing is learned.

        Unlike a fresh model it has maps as sharp, and residuals as large, as the trained one.
        """
        generator = torch.Generator().manual_seed(seed)
        average = {
            name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(
                tensor.shape
            )
            for name, tensor in sorted(self.average.items())
        }
        return replace(self, weights={}, average=average, training_state=None, control=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixArtFile:
    """What a file in the original PixArt-alpha format tells of its model."""

    model: DiTConfig
    parameters: int
    """Numbers in its tensors, the positions and the variance half of the prediction included."""
    digest: str
    """SHA-256 of the file."""


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write the file whole or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": asdict(checkpoint.model),
        "encoder": _plain(asdict(checkpoint.encoder)),
        "task": _plain(asdict(checkpoint.task)),
        "objective": str(checkpoint.objective),
        "step": checkpoint.step,
        "weights": _one_name_each(checkpoint.weights),
        "average": _one_name_each(checkpoint.average),
        "metrics": [_one_name_each(evaluation) for evaluation in checkpoint.metrics],
        "training_state": checkpoint.training_state,
        "origin": checkpoint.origin and asdict(checkpoint.origin),
    }
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with placed(path, partial), partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def checkpoint_of(model: Checkpoint | Path | str) -> Checkpoint:
    """A checkpoint, or the one that `load_checkpoint` reads; raises as that does."""
    return model if isinstance(model, Checkpoint) else load_checkpoint(model)


def load_checkpoint(model: Path | str) -> Checkpoint:
    """Read a checkpoint, a file or a packaged model by name, without running anything in it.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or not one of ours.
    """
    path = find_checkpoint(model)
    content, digest = read_tensors(path)
    if find_pixart(content) is not None:
        raise CheckpointError(
            f"{path} is a PixArt checkpoint and does not tell which text encoder it reads; "
            f"name it: attnsearch scan {path} --encoder t5 --encoder-source FOLDER"
        )
    return _own(content, path, digest)


def describe_checkpoint(path: Path) -> Checkpoint | PixArtFile:
    """A checkpoint of ours, or what one of PixArt tells by itself.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or neither.
        ConfigError: the width of a PixArt model does not tell how many heads it has.
    """
    content, digest = read_tensors(path)
    weights = find_pixart(content)
    if weights is None:
        return _own(content, path, digest)
    try:
        model = infer_config(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is a damaged PixArt checkpoint: {error}") from error
    return PixArtFile(
        model=model,
        parameters=sum(t.numel() for t in weights.values() if isinstance(t, Tensor)),
        digest=digest,
    )


def load_pixart(
    path: Path,
    *,
    encoder: EncoderKind,
    source: str = "",
    dtype: str = "float32",
    heads: int | None = None,
) -> Checkpoint:
    """Read a checkpoint in the original PixArt-alpha format, the averaged weights if it has them.

    The file tells all sizes but the number of heads (see `infer_config`), and not the text
    encoder: `encoder`, `source` and `dtype` are those of `EncoderSpec`. The task is the one of
    arXiv 2601.06338, at the size of the image that a VAE makes of the latents; the step is the
    one in the file's name, as in `epoch_4000_step_160000.pth`, or 0.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or no PixArt model that we read.
        ConfigError: `heads` or the encoder contradicts the file, or is needed and not given.
    """
    content, digest = read_tensors(path)
    weights = find_pixart(content)
    if weights is None:
        raise CheckpointError(f"{path} is not a PixArt checkpoint")
    try:
        model, average = convert_pixart(weights, heads)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} is a PixArt checkpoint that cannot be used: {error}"
        ) from error
    step = re.search(r"step_(\d+)", path.stem)
    return Checkpoint(
        model=model,
        encoder=EncoderSpec(
            kind=encoder,
            channels=model.text_channels,
            text_length=model.text_length,
            source=source,
            dtype=dtype,
        ),
        task=_latent_task(model),
        objective=Objective.EPSILON,
        step=int(step[1]) if step else 0,
        weights={},
        average=average,
        digest=digest,
    )


def _own(content: Any, path: Path, digest: str) -> Checkpoint:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a checkpoint of another architecture; attnsearch reads its own DiT format"
        )
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {one_line(str(version), 40)}, this attnsearch reads "
            f"{VERSION}; update attnsearch"
        )
    return _parse(content, path, digest)


def _latent_task(model: DiTConfig) -> TaskSpec:
    """The paper's task, drawn at the size of the decoded image."""
    paper = PRESETS["paper"]
    canvas = LATENT_SCALE * model.image_side
    return replace(
        paper,
        canvas=canvas,
        radius=round(paper.radius * canvas / paper.canvas),
        axis_tolerance=round(paper.axis_tolerance * canvas / paper.canvas),
        text_length=model.text_length,
    )


def _parse(content: Mapping[str, Any], path: Path, digest: str) -> Checkpoint:
    try:
        encoder, task = dict(content["encoder"]), dict(content["task"])
        encoder["kind"] = EncoderKind(encoder["kind"])
        task["layout"] = Layout(task["layout"])
        task["phrases"] = PhraseSet(task["phrases"])
        checkpoint = Checkpoint(
            model=DiTConfig(**content["model"]),
            encoder=EncoderSpec(**encoder),
            task=TaskSpec(**task),
            objective=Objective(content["objective"]),
            step=_count(content["step"]),
            weights=_tensors(content["weights"]),
            average=_tensors(content["average"]),
            metrics=[_numbers(evaluation) for evaluation in content["metrics"]],
            training_state=_table(content["training_state"]),
            digest=digest,
            origin=_origin(content.get("origin")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} has a damaged header: {one_line(str(error), 300)}"
        ) from error
    _check_whole(checkpoint, path)
    return checkpoint


def _check_whole(checkpoint: Checkpoint, path: Path) -> None:
    """Refuse parts that contradict each other."""
    model, encoder = checkpoint.model, checkpoint.encoder
    read, given = (model.text_length, model.text_channels), (encoder.text_length, encoder.channels)
    if read != given:
        raise CheckpointError(
            f"{path} has a damaged header: the model reads {read[0]} tokens of {read[1]} channels, "
            f"its encoder gives {given[0]} of {given[1]}"
        )
    for weights in (checkpoint.average, checkpoint.weights or checkpoint.average):
        try:
            check_fit(model, weights)
        except CheckpointError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error


def check_fit(model: DiTConfig, weights: Mapping[str, Any]) -> None:
    """Refuse weights of other sizes than a model's, before memory is taken for one.

    Raises:
        CheckpointError: naming the first that does not fit.
    """
    if model.depth > len(weights):  # to make even the outline of such a model may take for ever
        raise CheckpointError(
            f"the weights do not fit the model's sizes: {len(weights)} are too few for "
            f"{model.depth} blocks"
        )
    with torch.device("meta"):
        expected = DiT(model).state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        weight = weights.get(name)
        if name not in expected:
            misfit = f"{one_line(name, 100)} is one too many"
        elif not isinstance(weight, Tensor) or not weight.is_floating_point():
            misfit = f"{name} is missing, or no tensor of real numbers"
        elif weight.shape != expected[name].shape:
            misfit = f"{name} is {list(weight.shape)}, not {list(expected[name].shape)}"
        else:
            continue
        raise CheckpointError(f"the weights do not fit the model's sizes: {misfit}")


def _tensors(weights: Any) -> dict[str, Tensor]:
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()
    ):
        raise TypeError("weights and average must be tables of tensors")
    return weights


def _numbers(evaluation: Any) -> dict[str, float]:
    if not isinstance(evaluation, dict) or not all(
        isinstance(name, str) and type(number) in (int, float)
        for name, number in evaluation.items()
    ):
        raise TypeError("metrics must be tables of numbers")
    return evaluation


def _count(step: Any) -> int:
    if type(step) is not int or not 0 <= step < 2**63:
        raise TypeError(f"step must be a whole number, not {quote(step)}")
    return step


def _table(state: Any) -> dict[str, Any] | None:
    if state is not None and not isinstance(state, dict):
        raise TypeError("training_state must be a table, or None")
    return state


def _origin(source: Any) -> Origin | None:
    # Files from before there were warm starts do not say; their trainings began at random.
    return None if source is None else Origin(**source)


def _one_name_each(table: Mapping[str, Any]) -> dict[str, Any]:
    """The same table with names that are one object wherever they are equal.

    Pickle writes equal strings once or twice by that, and a run that was resumed should end with
    the bytes of one that was not.
    """
    return {sys.intern(name): value for name, value in table.items()}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Enums as their values, which is all `weights_only` loading admits."""
    return {
        name: str(value) if isinstance(value, StrEnum) else value for name, value in fields.items()
    }
