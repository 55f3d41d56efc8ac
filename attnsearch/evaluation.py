"""How often a model paints what it was asked: accuracies with intervals, seen and held out."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from attnsearch import encoders
from attnsearch.encoders import EncodedText
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint, checkpoint_of
from attnsearch.models.guidance import Conditioning
from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample, to_pixels
from attnsearch.task.captions import (
    Caption,
    exam_captions,
    grid_captions,
    is_held_out,
)
from attnsearch.task.scoring import ImageScore, score_images
from attnsearch.task.spec import NAMINGS, TaskSpec
from attnsearch.task.wordings import wordings

Floats = npt.NDArray[np.float32]

MEASURES: Final = (
    "shape", "colour", "exist_binding", "binding", "relation_strict", "relation_loose",
)  # fmt: skip
"""What an image is scored on, after arXiv 2601.06338; each implies the image was readable."""

Outcomes = npt.NDArray[np.float64]
"""[sample, measure] 1 or 0, NaN where the caption does not ask for it."""


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
    """By split, then by measure.

    A split is `in_distribution`, or `held_out` where training never shows what is asked; captions
    that leave out colours have splits of their own, such as `in_distribution_no_colour_1`. A
    measure that no caption of a split asks for is not there: `colour` where none is named.
    """
    captions: list[Caption]
    """One per image."""
    images: Floats
    """[sample, y, x, rgb] in [0, 1]."""

    def table(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The accuracies as plain values, keyed by split, measure and field."""
        return {
            split: {name: asdict(accuracy) for name, accuracy in accuracies.items()}
            for split, accuracies in self.accuracies.items()
        }


class Exam:
    """Prompts of a task under seeds 0, 1, ..., for a model to paint and be scored on.

    Samples are numbered; those of one prompt follow each other.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        seeds: int,
        sampler: SamplerConfig,
        device: torch.device,
        prompts: list[Caption] | None = None,
    ) -> None:
        """Build the model and read the captions: `prompts`, or the task's grid.

        Raises:
            CaptionError: a prompt has too many words for the model.
            ConfigError: `seeds` is not positive, or the model paints something else than images of
                its task.
        """
        if seeds < 1:
            raise ConfigError(f"seeds must be at least 1, not {seeds}")
        task, painted_by = checkpoint.task, checkpoint.model
        if (painted_by.image_channels, painted_by.image_side) != (3, task.canvas):
            raise ConfigError(
                f"the model paints {painted_by.image_channels} channels of {painted_by.image_side} "
                f"px, its task has images of {task.canvas} px; latents can be scanned, with --vae"
            )
        self.model = checkpoint.build().to(device)
        self.task = task
        self.prompts = prompts or grid_captions(task)
        self.text = encoders.build(checkpoint.encoder).encode(self.prompts)
        self.seeds = seeds
        self._checkpoint, self._sampler, self._device = checkpoint, sampler, device

    def __len__(self) -> int:
        """Samples."""
        return len(self.prompts) * self.seeds

    def caption(self, sample_number: int) -> Caption:
        """What a sample is asked to show."""
        return self.prompts[sample_number // self.seeds]

    def paint(self, samples: Sequence[int]) -> Floats:
        """Images [sample, y, x, rgb] in [0, 1] of some samples, as one batch."""
        noise = noise_of_seeds([number % self.seeds for number in samples], self.model)
        prompts = [number // self.seeds for number in samples]
        chosen = EncodedText(*(part[prompts] for part in self.text))
        conditioning = Conditioning.from_text(chosen, self._device)
        objective = self._checkpoint.objective
        return to_pixels(
            sample(self.model, objective, conditioning, noise.to(self._device), self._sampler)
        )

    def score(self, images: Floats, samples: Sequence[int]) -> list[ImageScore]:
        """One score per image of the samples it was painted for."""
        captions = [self.caption(number) for number in samples]
        return score_images(images, captions, self._checkpoint.task)


def evaluate(
    model: Checkpoint | Path | str,
    *,
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
    prompts: list[Caption] | None = None,
    batch: int = 64,
    advance: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Sample prompts under seeds 0, 1, ... and score every image.

    `model` is a checkpoint, its file, or a packaged model by name. By default the prompts are
    `exam_captions`: the task's whole prompt grid and, where its training leaves out colours, the
    grid without colour 1, without colour 2 and without both. `advance` is told the number of images
    finished after each batch.

    Raises:
        CheckpointError: the model cannot be read.
        ConfigError: as of `Exam`.
    """
    checkpoint = checkpoint_of(model)
    prompts = prompts or exam_captions(checkpoint.task)
    exam = Exam(checkpoint, seeds=seeds, sampler=sampler, device=device, prompts=prompts)
    images, outcomes = _sit(exam, batch, advance)
    captions = [exam.caption(number) for number in range(len(exam))]
    return Evaluation(_by_split(captions, outcomes, checkpoint.task), captions, images)


def robustness(
    checkpoint: Checkpoint,
    *,
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
    batch: int = 64,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, dict[str, Accuracy]]:
    """Accuracies by wording of the prompt grid (`task.wordings`) and measure.

    Raises:
        CaptionError: a wording has too many words for the model.
        ConfigError: as of `Exam`.
    """
    named = wordings(checkpoint.task)
    prompts = [prompt for each in named.values() for prompt in each]
    exam = Exam(checkpoint, seeds=seeds, sampler=sampler, device=device, prompts=prompts)
    _, outcomes = _sit(exam, batch, advance)
    ends = np.cumsum([len(each) * seeds for each in named.values()])
    return {
        name: _accuracies(rows)
        for name, rows in zip(named, np.split(outcomes, ends[:-1]), strict=True)
    }


def accuracy(outcomes: npt.NDArray[np.bool_]) -> Accuracy:
    """The share of true outcomes [sample], with its Wilson 95 % interval."""
    from scipy.stats import binomtest  # slow to import

    interval = binomtest(int(outcomes.sum()), len(outcomes)).proportion_ci(method="wilson")
    return Accuracy(
        float(outcomes.mean()), float(interval.low), float(interval.high), len(outcomes)
    )


def _sit(exam: Exam, batch: int, advance: Callable[[int], None]) -> tuple[Floats, Outcomes]:
    """All images of an exam, and their outcomes."""
    samples, painted = range(len(exam)), []
    for start in range(0, len(exam), batch):
        chosen = samples[start : start + batch]
        painted.append(exam.paint(chosen))
        advance(len(chosen))
    images = np.concatenate(painted)
    rows = [[getattr(score, name) for name in MEASURES] for score in exam.score(images, samples)]
    return images, np.array(rows, dtype=np.float64)  # of None it makes NaN


def _by_split(
    captions: Sequence[Caption], outcomes: Outcomes, task: TaskSpec
) -> dict[str, dict[str, Accuracy]]:
    unseen = np.array([is_held_out(caption, task) for caption in captions])
    splits = {
        split + ("" if all(named) else f"_{naming.replace(' ', '_')}"): rows
        & np.array([caption.colours_named == named for caption in captions])
        for naming, named in NAMINGS.items()
        for split, rows in {"in_distribution": ~unseen, "held_out": unseen}.items()
    }
    return {split: _accuracies(outcomes[rows]) for split, rows in splits.items() if rows.any()}


def _accuracies(outcomes: Outcomes) -> dict[str, Accuracy]:
    """By measure, over the samples whose caption asks for it; without what none asks for."""
    asked = ~np.isnan(outcomes)
    return {
        name: accuracy(outcomes[asked[:, column], column] == 1)
        for column, name in enumerate(MEASURES)
        if asked[:, column].any()
    }
