"""The training loop: one object that holds a run's state and takes one step at a time.

The same run stopped anywhere and resumed takes the same steps: every random draw comes from one
generator, which is saved with the optimisers.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any, Final, NamedTuple, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsearch import encoders
from attnsearch.errors import CheckpointError, DivergenceError
from attnsearch.intake import one_line, quote
from attnsearch.models import Checkpoint, DiT, Origin
from attnsearch.task.captions import training_captions
from attnsearch.task.scenes import draw_scenes, render
from attnsearch.training.captioning import CaptionSampler
from attnsearch.training.config import TrainingConfig
from attnsearch.training.muon import Muon
from attnsearch.training.objectives import noise_batch
from attnsearch.training.recording import RecordedBackward

_Kind = TypeVar("_Kind")

_ADAM_BETAS: Final = (0.9, 0.99)
_MEMORY: Final[dict[type, set[str]]] = {
    Muon: {"momentum"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}
"""What an optimiser remembers of a parameter once it has moved it."""


class _Batch(NamedTuple):
    image: Tensor
    timestep: Tensor
    target: Tensor
    caption: Tensor
    """[row] index into the training captions."""
    dropped: Tensor
    """[row] bool, where the null condition takes the caption's place."""


class Trainer:
    """A training run in progress."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        torch.manual_seed(config.seed)
        model = DiT(config.model)
        if config.start is not None:
            model.load_state_dict(config.start.weights(model))
        self.model = model.to(device)
        self.average = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step = 0
        self.metrics: list[dict[str, float]] = []
        # What is left out at any step has its captions, though the task may end without.
        most = max(value for _, value in config.dropout.stages)
        captions = training_captions(replace(config.task, colour_dropout=most))
        self._caption_sampler = CaptionSampler(captions)
        text = encoders.build(config.encoder).encode(captions)
        self._text, self._text_mask = text.embedding.to(device), text.mask.to(device)
        self._optimisers = _optimisers(self.model, config)
        self._recorded: RecordedBackward | None = None

    @classmethod
    def resume(cls, config: TrainingConfig, checkpoint: Checkpoint, device: torch.device) -> Self:
        """The run a checkpoint was saved from, at the step it was saved.

        Raises:
            CheckpointError: the checkpoint lacks its training state, or is of another run.
        """
        state = check_same_run(config, checkpoint)
        trainer = cls(config, device)
        try:
            for name, weight in (*checkpoint.weights.items(), *checkpoint.average.items()):
                _check_finite(name, weight)
            trainer.model.load_state_dict(checkpoint.weights)
            trainer.generator.set_state(state["generator"])
            memories = _of(list, state["optimisers"])
            for optimiser, saved in zip(trainer._optimisers, memories, strict=True):
                _resume_optimiser(optimiser, _of(dict, saved))
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(
                f"the training state to resume is damaged: {one_line(str(error), 200)}"
            ) from error
        trainer.average = {
            name: t.to(device, torch.float32, copy=True) for name, t in checkpoint.average.items()
        }
        trainer.step = checkpoint.step
        trainer.metrics = list(checkpoint.metrics)
        return trainer

    def take_step(self) -> float:
        """One optimiser step on a fresh batch; returns the loss.

        Raises:
            DivergenceError: the loss is not finite; the weights are spoilt.
        """
        config = self.config
        factor = config.rate_factor(self.step)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * factor
        loss = self._backward(self._draw())
        for optimiser in self._optimisers:
            optimiser.step()
        self._update_average()
        self.step += 1
        value = loss.item()
        if not isfinite(value):
            raise DivergenceError(
                f"training diverged: the loss of step {self.step:,} is {value}; another seed or "
                "lower learning rates may hold"
            )
        return value

    def checkpoint(self) -> Checkpoint:
        """All of the run at this step."""
        return Checkpoint(
            model=self.config.model,
            encoder=self.config.encoder,
            task=self.config.task,
            objective=self.config.objective,
            step=self.step,
            weights={name: t.detach().cpu() for name, t in self.model.state_dict().items()},
            average={name: t.cpu() for name, t in self.average.items()},
            metrics=self.metrics,
            origin=self.config.origin,
            training_state={
                "settings": _settings(self.config),
                "generator": self.generator.get_state(),
                "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            },
        )

    def _draw(self) -> _Batch:
        config = self.config
        scenes = draw_scenes(config.task, config.batch, self.generator)
        caption = self._caption_sampler.draw(scenes, config.dropout.at(self.step), self.generator)
        noised = noise_batch(render(config.task, scenes), config, self.generator)
        dropped = torch.rand(config.batch, generator=self.generator) < config.null_probability
        batch = _Batch(*noised, caption, dropped)
        return _Batch(*(each.to(self.device) for each in batch))

    def _backward(self, batch: _Batch) -> Tensor:
        """The loss of a batch; leaves its clipped gradients on the parameters."""
        if self.device.type != "cuda":
            self.model.zero_grad(set_to_none=True)
            return self._loss_and_gradients(*batch)
        if self._recorded is None:
            self._recorded = RecordedBackward(self._loss_and_gradients, self.model, batch)
        return self._recorded(*batch)

    def _loss_and_gradients(
        self, image: Tensor, timestep: Tensor, target: Tensor, caption: Tensor, dropped: Tensor
    ) -> Tensor:
        text = torch.where(dropped[:, None, None], self.model.null_embedding, self._text[caption])
        # Mixed precision pays where the hardware multiplies bfloat16; weights stay float32.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            prediction = self.model(image, timestep, text, self._text_mask[caption])
        loss = F.mse_loss(prediction.float(), target)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average forgets faster, so that early checkpoints are not the initial noise.
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        weights = self.model.state_dict()
        # A resumed average may have its names in another order.
        averages = [self.average[name] for name in weights]
        torch._foreach_lerp_(averages, list(weights.values()), 1 - decay)


def check_same_run(config: TrainingConfig, checkpoint: Checkpoint) -> dict[str, Any]:
    """The training state of a checkpoint that was saved by the run a config describes.

    Raises:
        CheckpointError: the checkpoint lacks its training state, or is of another run.
    """
    state = checkpoint.training_state
    if state is None:
        raise CheckpointError("the checkpoint was published without its training state")
    for name in ("model", "encoder", "task", "objective"):
        if getattr(checkpoint, name) != getattr(config, name):
            raise CheckpointError(f"the checkpoint to resume was trained on another {name}")
    ours, theirs = config.origin, checkpoint.origin
    if (ours and ours.digest) != (theirs and theirs.digest):
        raise CheckpointError(
            f"the run to resume began {_beginning(theirs)}, not {_beginning(ours)}"
        )
    saved = state.get("settings")
    held = saved if isinstance(saved, dict) else {}
    settings = _settings(config)
    for name in settings | held:
        wanted, found = settings.get(name), held.get(name)
        if type(found) is not type(wanted) or found != wanted:
            raise CheckpointError(
                f"the run to resume has {one_line(str(name), 40)} {quote(found)}, not {wanted}"
            )
    return state


def _beginning(origin: Origin | None) -> str:
    return "at random" if origin is None else f"with {origin.name} ({origin.digest[:12]})"


def _settings(config: TrainingConfig) -> dict[str, int | float | str]:
    """What may not change within a run, beside what a checkpoint tells anyway."""
    stages = [f"{value} from step {step}" for step, value in config.dropout.stages]
    return {
        "seed": config.seed,
        "batch": config.batch,
        "learning_rate": config.learning_rate,
        "matrix_learning_rate": config.matrix_learning_rate,
        "colour_dropout": ", ".join(stages),
    }


def _optimisers(model: DiT, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2 and min(p.shape) > 6]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimisers: list[torch.optim.Optimizer] = [
        Muon(matrices, config.matrix_learning_rate),
        torch.optim.AdamW(others, config.learning_rate, betas=_ADAM_BETAS, weight_decay=0.0),
    ]
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return optimisers


def _resume_optimiser(optimiser: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Give an optimiser the memory it was saved with; its settings are those of the run.

    Raises:
        ValueError: it is not the memory of such an optimiser, or other settings were saved.
    """
    groups = optimiser.state_dict()["param_groups"]
    for ours, theirs in zip(groups, _of(list, saved["param_groups"]), strict=True):
        for name in (ours.keys() & _of(dict, theirs).keys()) - {"lr"}:  # which follows the step
            if theirs[name] != ours[name]:
                raise ValueError(f"{name} is {quote(theirs[name])}, not {quote(ours[name])}")
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    for index, memory in _of(dict, saved["state"]).items():
        if _of(dict, memory).keys() != _MEMORY[type(optimiser)]:
            raise ValueError(f"parameter {quote(index)} is remembered by {quote([*memory])}")
        for name, each in memory.items():
            tensor = _of(Tensor, each)
            shape = () if name == "step" else parameters[index].shape
            if tensor.shape != shape or not tensor.is_floating_point():
                raise ValueError(f"{name} of parameter {index} is {list(tensor.shape)}")
            _check_finite(f"{name} of parameter {index}", tensor)
    optimiser.load_state_dict({"state": saved["state"], "param_groups": groups})


def _of(kind: type[_Kind], value: Any) -> _Kind:
    if not isinstance(value, kind):
        raise TypeError(f"there is {quote(value)} where a {kind.__name__} should be")
    return value


def _check_finite(name: str, tensor: Tensor) -> None:
    if not tensor.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity")
