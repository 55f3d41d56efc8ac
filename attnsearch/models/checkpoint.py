"""One file per model: weights, what they were trained on, and how far.

Files are read with `weights_only=True`, so a checkpoint can hold data but never run code, and
every part is validated before it is used.
"""

import hashlib
import os
import pickle
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from attnsearch.encoders import EncoderKind, EncoderSpec
from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.models.dit import DiT, DiTConfig
from attnsearch.task.spec import Layout, PhraseSet, TaskSpec

FORMAT: Final = "attnsearch-dit"
VERSION: Final = 1


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

    def build(self) -> DiT:
        """The averaged model, ready to sample from.

        Raises:
            CheckpointError: the weights do not fit the sizes, or are not finite.
        """
        model = DiT(self.model)
        try:
            model.load_state_dict({name: t.float() for name, t in self.average.items()})
        except (RuntimeError, AttributeError) as error:
            first = str(error).splitlines()[-1].strip()
            raise CheckpointError(f"the weights do not fit the model's sizes: {first}") from error
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
    }
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running anything in it.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or not one of ours.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"no such file: {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that are refused a moment later
            content = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint, or would run code when loaded; refused"
        ) from error
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        raise CheckpointError(f"{path} is not a checkpoint, or it is truncated") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is a checkpoint of another architecture; attnsearch reads its own DiT format"
        )
    if content.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {content.get('version')}, this attnsearch reads "
            f"{VERSION}; update attnsearch"
        )
    return _parse(content, path, hashlib.sha256(data).hexdigest())


def _parse(content: Mapping[str, Any], path: Path, digest: str) -> Checkpoint:
    try:
        encoder, task = dict(content["encoder"]), dict(content["task"])
        encoder["kind"] = EncoderKind(encoder["kind"])
        task["layout"] = Layout(task["layout"])
        task["phrases"] = PhraseSet(task["phrases"])
        return Checkpoint(
            model=DiTConfig(**content["model"]),
            encoder=EncoderSpec(**encoder),
            task=TaskSpec(**task),
            objective=Objective(content["objective"]),
            step=int(content["step"]),
            weights=_tensors(content["weights"]),
            average=_tensors(content["average"]),
            metrics=[dict(evaluation) for evaluation in content["metrics"]],
            training_state=content["training_state"],
            digest=digest,
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"{path} has a damaged header: {error}") from error


def _tensors(weights: Any) -> dict[str, Tensor]:
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise TypeError("weights and average must be tables of tensors")
    return weights


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
