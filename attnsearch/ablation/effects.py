"""What it does to the images when heads are switched off: a paired design.

Every ablation paints the same prompts from the same noise as the whole model, so what differs is
the heads' doing. Images of several ablations are painted as one batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnsearch.ablation.hooks import MeanOutputs, Part, ablated, check_heads, mean_outputs
from attnsearch.ablation.request import Ablation, Mode, check_roles
from attnsearch.axes import RELATION_DIRECTIONS, ROLES
from attnsearch.evaluation import MEASURES as ASKED
from attnsearch.evaluation import Exam, Floats
from attnsearch.models import Checkpoint, DiTConfig, checkpoint_of
from attnsearch.sampling import SamplerConfig
from attnsearch.task.captions import Caption
from attnsearch.task.scoring import shows_relation

MEASURES: Final = (*ASKED, "opposite")
"""What images are scored on: as in `evaluation`, and whether they show the opposite relation."""
_DRAWS: Final = 2000
_PHRASE: Final = frozenset({"relation", "filler"})
"""Roles of the whole relation phrase, not of its direction words alone."""
_MOST_ROWS: Final = {"cpu": 64, "cuda": 1024}
"""Images painted together: more do not pay on a CPU, and fewer leave a GPU idle."""
_MOST_NUMBERS: Final = 2**27
"""Of the residual stream of a batch, half a gigabyte: a wide model on many tokens takes fewer."""

Outcomes = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an ablation did to one share of images."""

    measure: str
    """One of `MEASURES`."""
    before: float
    after: float
    difference: float
    """After less before."""
    low: float
    high: float
    """95 % interval of the difference, a bootstrap over prompts."""
    p_value: float
    """McNemar's exact test: chance of so uneven a change, if both ways are as likely."""
    images: int


def measure_effects(
    model: Checkpoint | Path | str,
    ablations: Sequence[Ablation],
    *,
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
    rows: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[dict[str, Effect]]:
    """The effects of every ablation, keyed by measure, in order, each as soon as it is known.

    `model` is a checkpoint, its file, or a packaged model by name. Its task's whole prompt grid is
    painted once with all heads, and once for every ablation, at most `rows` images together;
    `advance` is told the number of images finished after each batch. Mean outputs are of the images
    painted with all heads.

    Raises:
        CheckpointError: the model cannot be read.
        ConfigError: an ablation asks for what the model or the task has not, or as of `Exam`.
    """
    checkpoint = checkpoint_of(model)
    for each in ablations:
        check_heads(each, [checkpoint.model.heads] * checkpoint.model.depth)
        check_roles(each.hide)
    exam = Exam(checkpoint, seeds=seeds, sampler=sampler, device=device)
    painter = _Painter(exam, device, rows or rows_together(exam.model.config, device), advance)
    before = painter.whole(recorded=any(each.mode is Mode.MEAN for each in ablations))
    for after in painter.without(ablations):
        yield effects_of(before, after, seeds)


def rows_together(model: DiTConfig, device: torch.device) -> int:
    """How many images of a model are painted together."""
    fitting = _MOST_NUMBERS // (2 * model.grid**2 * model.width)
    return max(1, min(_MOST_ROWS[device.type], fitting))


class _Painter:
    """Paints the prompt grid with and without heads."""

    def __init__(
        self, exam: Exam, device: torch.device, rows: int, advance: Callable[[int], None]
    ) -> None:
        self._exam, self._rows, self._advance = exam, rows, advance
        self._device = device
        self._means: MeanOutputs = {}
        self._sources = {
            Mode.RESAMPLE: _others(exam.prompts),
            Mode.OPPOSITE: _opposites(exam.prompts),
        }

    def whole(self, *, recorded: bool) -> Outcomes:
        """Outcomes [sample, measure] with all heads; their mean outputs are kept if `recorded`."""
        counts: dict[tuple[int, int], int] = {}
        painted, samples = [], range(len(self._exam))
        for start in range(0, len(samples), self._rows):
            chosen = samples[start : start + self._rows]
            if recorded:
                with mean_outputs(self._exam.model, self._means, counts):
                    images = self._exam.paint(chosen)
            else:
                images = self._exam.paint(chosen)
            painted.append(self._outcomes(images, chosen))
            self._advance(len(chosen))
        return np.concatenate(painted)

    def without(self, ablations: Sequence[Ablation]) -> Iterator[Outcomes]:
        """Outcomes [sample, measure] of each ablation in turn; a batch can have parts of two."""
        count = len(self._exam)
        wanted = [(each, number) for each in range(len(ablations)) for number in range(count)]
        painted = np.empty((0, len(MEASURES)), dtype=bool)
        for start in range(0, len(wanted), self._rows):
            chosen = wanted[start : start + self._rows]
            painted = np.concatenate([painted, self._batch(ablations, chosen)])
            self._advance(len(chosen))
            while len(painted) >= count:
                yield painted[:count]
                painted = painted[count:]

    def _batch(self, ablations: Sequence[Ablation], wanted: Sequence[tuple[int, int]]) -> Outcomes:
        """Outcomes of samples under ablations; whose outputs they borrow is painted beside them."""
        samples = [number for _, number in wanted]
        beside: dict[int, int] = {}
        parts = []
        start = 0
        for which, members in groupby(wanted, key=lambda pair: pair[0]):
            numbers = [number for _, number in members]
            ablation, source = ablations[which], None
            if ablation.mode.borrows:
                lenders = [self._source(ablation.mode, number) for number in numbers]
                places = [
                    len(samples) + beside.setdefault(lender, len(beside)) for lender in lenders
                ]
                source = torch.tensor(places)
            parts.append(Part(ablation, slice(start, start + len(numbers)), source))
            start += len(numbers)
        painted = [*samples, *beside]
        roles = self._exam.text.roles[[number // self._exam.seeds for number in painted]]
        hidden = torch.zeros(roles.shape[:2], dtype=torch.bool)
        for part in parts:
            hidden[part.samples] = tokens_of(roles[part.samples], part.ablation.hide)
        hidden = hidden.to(self._device)
        with ablated(self._exam.model, parts, means=self._means, hidden=hidden):
            images = self._exam.paint(painted)
        return self._outcomes(images[: len(samples)], samples)

    def _source(self, mode: Mode, sample_number: int) -> int:
        prompt, seed = divmod(sample_number, self._exam.seeds)
        return self._sources[mode][prompt] * self._exam.seeds + seed

    def _outcomes(self, images: Floats, samples: Sequence[int]) -> Outcomes:
        rows = []
        for score, number in zip(self._exam.score(images, samples), samples, strict=True):
            caption = self._exam.caption(number)
            swapped = shows_relation(score, opposite_of(caption.relation), self._exam.task)
            rows.append([*(getattr(score, name) for name in ASKED), swapped])
        return np.array(rows)


def tokens_of(gamma: Tensor, roles: frozenset[str] = frozenset()) -> Tensor:
    """[sample, token] bool, the tokens of some roles, from Gamma [sample, token, role].

    By default those of the relation phrase.
    """
    own = [ROLES.index(role) for role in roles or _PHRASE]
    return gamma[..., own].sum(-1) > 0


def opposite_of(relation: str) -> str:
    """The relation of the same two objects in each other's place."""
    x, y = RELATION_DIRECTIONS[relation]
    return next(name for name, direction in RELATION_DIRECTIONS.items() if direction == (-x, -y))


def _others(prompts: Sequence[Caption]) -> list[int]:
    """For every prompt another, each serving once: a random order and its next in it."""
    order = np.random.default_rng(0).permutation(len(prompts))
    following = np.empty_like(order)
    following[order] = np.roll(order, -1)
    return [int(each) for each in following]


def _opposites(prompts: Iterable[Caption]) -> list[int]:
    """For every prompt that of the same objects in the opposite relation, of as like a wording."""
    found: dict[tuple[int, str], list[int]] = {}
    places = []
    for number, prompt in enumerate(prompts):
        alike = found.setdefault((prompt.pair, prompt.relation), [])
        places.append((prompt.pair, opposite_of(prompt.relation), len(alike)))
        alike.append(number)
    return [found[pair, relation][place] for pair, relation, place in places]


def effects_of(before: Outcomes, after: Outcomes, seeds: int) -> dict[str, Effect]:
    """Effects from outcomes [sample, measure] of the same prompts and noise.

    Samples of a prompt follow each other, `seeds` of them.
    """
    from scipy.stats import binomtest  # slow to import

    change = (after.astype(float) - before).reshape(-1, seeds, len(MEASURES)).mean(axis=1)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(change), np.full(len(change), 1 / len(change)), size=_DRAWS)
    low, high = np.quantile(drawn @ change / len(change), [0.025, 0.975], axis=0)
    found = {}
    for number, measure in enumerate(MEASURES):
        lost = int((before[:, number] & ~after[:, number]).sum())
        won = int((~before[:, number] & after[:, number]).sum())
        found[measure] = Effect(
            measure=measure,
            before=float(before[:, number].mean()),
            after=float(after[:, number].mean()),
            difference=float(change[:, number].mean()),
            low=float(low[number]),
            high=float(high[number]),
            p_value=float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
            images=len(before),
        )
    return found
