"""How often a model paints what it was asked: accuracies with intervals, seen and held out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from attnsearch import encoders
from attnsearch.axes import RELATIONS
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint, DiT
from attnsearch.models.guidance import Conditioning
from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample, to_pixels
from attnsearch.task.captions import Caption, grid_captions
from attnsearch.task.scoring import score_images
from attnsearch.task.spec import held_out_combinations

MEASURES: Final = (
    "shape", "colour", "exist_binding", "binding", "relation_strict", "relation_loose",
)  # fmt: skip
"""What an image is scored on, after arXiv 2601.06338; each implies the image was readable."""


Within = Callable[[DiT, Sequence[Caption]], AbstractContextManager[None]]
"""From a model and the captions of a batch to what that batch is sampled inside of."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of images with its Wilson 95 % interval, all in [0, 1]."""

    value: float
    low: float
    high: float
    count: int
    """Images scored."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracies of one checkpoint, by split and by measure, and the images behind them."""

    accuracies: dict[str, dict[str, Accuracy]]
    """Keyed by split (`in_distribution`, `held_out` where the task holds something out)."""
    captions: list[Caption]
    """One per image."""
    images: npt.NDArray[np.float32]
    """[sample, y, x, rgb] in [0, 1]."""
    outcomes: npt.NDArray[np.bool_]
    """[sample, measure] whether each image is what was asked, by `MEASURES`."""

    def table(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The accuracies as plain values, keyed by split, measure and field."""
        return {
            split: {name: asdict(accuracy) for name, accuracy in accuracies.items()}
            for split, accuracies in self.accuracies.items()
        }


def evaluate(
    checkpoint: Checkpoint,
    *,
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
    batch: int = 64,
    advance: Callable[[int], None] = lambda _: None,
    within: Within = lambda *_: nullcontext(),
) -> Evaluation:
    """Sample the task's whole prompt grid under seeds 0, 1, ... and score every image.

    `advance` is told the number of images finished after each batch; every batch is sampled
    `within` a context of its own, such as an ablation.

    Raises:
        ConfigError: `seeds` is not positive, or the model paints something else than images of
            its task.
    """
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, not {seeds}")
    task, painted_by = checkpoint.task, checkpoint.model
    if (painted_by.image_channels, painted_by.image_side) != (3, task.canvas):
        raise ConfigError(
            f"the model paints {painted_by.image_channels} channels of {painted_by.image_side} px, "
            f"its task has images of {task.canvas} px; latents can be scanned, with --vae"
        )
    captions = [caption for caption in grid_captions(task) for _ in range(seeds)]
    model = checkpoint.build().to(device)
    text = encoders.build(checkpoint.encoder)
    painted = []
    for start in range(0, len(captions), batch):
        chosen = captions[start : start + batch]
        noise = noise_of_seeds([(start + row) % seeds for row in range(len(chosen))], model)
        conditioning = Conditioning.from_text(text.encode(chosen), device)
        with within(model, chosen):
            sampled = sample(model, checkpoint.objective, conditioning, noise.to(device), sampler)
        painted.append(to_pixels(sampled))
        advance(len(chosen))
    images = np.concatenate(painted)
    scores = score_images(images, [c.pair for c in captions], [c.relation for c in captions], task)
    outcome = np.array([[getattr(score, name) for name in MEASURES] for score in scores])
    return Evaluation(_by_split(captions, outcome, checkpoint), captions, images, outcome)


def accuracy(outcomes: npt.NDArray[np.bool_]) -> Accuracy:
    """The share of true outcomes [sample], with its Wilson 95 % interval."""
    from scipy.stats import binomtest  # slow to import

    interval = binomtest(int(outcomes.sum()), len(outcomes)).proportion_ci(method="wilson")
    return Accuracy(
        float(outcomes.mean()), float(interval.low), float(interval.high), len(outcomes)
    )


def _by_split(
    captions: Sequence[Caption], outcome: npt.NDArray[np.bool_], checkpoint: Checkpoint
) -> dict[str, dict[str, Accuracy]]:
    held_out = held_out_combinations(checkpoint.task)
    unseen = np.array([(c.pair, RELATIONS.index(c.relation)) in held_out for c in captions])
    splits = {"in_distribution": ~unseen, "held_out": unseen}
    return {
        split: {name: accuracy(outcome[rows, k]) for k, name in enumerate(MEASURES)}
        for split, rows in splits.items()
        if rows.any()
    }
