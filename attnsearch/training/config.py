"""What a training run is told."""

from dataclasses import dataclass

from attnsearch.encoders import EncoderSpec
from attnsearch.errors import ConfigError
from attnsearch.models import DiTConfig, Objective, Origin
from attnsearch.task.spec import TaskSpec
from attnsearch.training.dropout import ColourDropout
from attnsearch.training.start import WarmStart


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """One training run.

    Raises:
        ConfigError: a value is out of range.
    """

    model: DiTConfig
    encoder: EncoderSpec
    task: TaskSpec
    colour_dropout: ColourDropout | None = None
    """By step, ending at the task's; None: the task's throughout."""
    start: WarmStart | None = None
    """What the weights begin with; None: at random."""
    objective: Objective = Objective.FLOW
    steps: int
    """Optimiser steps in all."""
    batch: int = 64
    """Images per step."""
    seed: int = 0
    """Of the initial weights and of every random draw of the run."""
    learning_rate: float = 2e-3
    """AdamW's, for embeddings, modulations and biases."""
    matrix_learning_rate: float = 0.02
    """Muon's, for the hidden matrices."""
    warmup: int = 200
    """Steps over which the learning rates rise from zero."""
    cooldown: float = 0.25
    """Last share of the steps over which the learning rates fall to zero."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    average_decay: float = 0.999
    """Decay per step of the weight average."""
    null_probability: float = 0.1
    """Share of captions replaced by the null condition, for classifier-free guidance."""
    noise_mean: float = 0.8
    """Mean of the logit of the noise level under the flow objective; above 0 favours noise."""
    evaluate_every: int = 2000
    """Steps between evaluations; the last step is always evaluated."""
    save_every: int = 500
    """Steps between checkpoints."""
    snapshots: int = 0
    """Published checkpoints kept on the way, evenly spaced; the last is of the last step."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.snapshots <= self.steps:
            raise ConfigError(
                f"snapshots must lie between 0 and the {self.steps} steps, not {self.snapshots}"
            )
        for name in ("average_decay", "null_probability", "cooldown"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if not self.gradient_clip > 0:
            raise ConfigError(f"gradient_clip must be positive, not {self.gradient_clip}")
        if self.model.image_side != self.task.canvas:
            raise ConfigError("the model's image side and the task's canvas differ")
        if self.model.text_channels != self.encoder.channels:
            raise ConfigError("the model's and the encoder's text channels differ")
        if self.model.text_length != self.encoder.text_length:
            raise ConfigError("the model's and the encoder's text lengths differ")
        if self.colour_dropout is not None:
            self.colour_dropout.check_ends_within(self.steps)
            if self.colour_dropout.last != self.task.colour_dropout:
                raise ConfigError("colour_dropout must end at the task's")
        if self.start is not None:
            self.start.check(self.model, self.encoder, self.objective, self.task)

    @property
    def origin(self) -> Origin | None:
        """The model that the weights begin with."""
        return None if self.start is None else self.start.origin

    @property
    def dropout(self) -> ColourDropout:
        """Probability by step that a colour word is left out."""
        return self.colour_dropout or ColourDropout(stages=((0, self.task.colour_dropout),))

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """The steps after which a snapshot is kept."""
        return tuple(k * self.steps // self.snapshots for k in range(1, self.snapshots + 1))

    def rate_factor(self, step: int) -> float:
        """Factor on both learning rates at a step: linear warm-up, constant, linear cool-down."""
        rise = (step + 1) / (self.warmup + 1)
        fall = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return min(1.0, rise, fall)
