"""Moving objects to where no caption asked: by a tag on the canvas, or in the text.

By the tag of a prompt: some heads put out what they do for another prompt that states the target
relation, from the same noise. Whose objects that prompt names tells what the tag is of: with the
same colours but other shapes, the same shapes but swapped colours, or the same two objects in the
other order, a tag of object 1, of a colour and of a shape each have other outcomes.

By the tag of images: instead of what the heads put out there is

    mean + strength (mean_m - mean)

at every step and image token, with mean over all prompts of objects in the same colours and mean_m
over those of them that state the target relation m. At strength 1 the heads say of every prompt
what they say of the target on average, whatever its shapes.

By the tag of weights: the relation phrase is hidden from the heads, and the tag that they write for
the target (`circuits.tags`) is added, times a strength, at the image tokens on its side, d . r > 0
with d the direction of the relation; on the other side for a head that marks object 2 (negative
projection). At strength 1 it is as if a head attended to the target's words alone on the one side,
and to none on the other.

By text: the vectors of tokens with some role are moved from the relation asked for to the target,

    e + strength (V_target - V_asked),   V_m = mean of e over prompts that state m

(the linear effects of arXiv 2601.06338). Words are left as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attnsearch.ablation.effects import opposite_of, rows_together, tokens_of
from attnsearch.ablation.hooks import MeanOutputs, Part, ablated, check_heads, mean_outputs
from attnsearch.ablation.request import Ablation, Mode, check_relation, check_roles, check_strength
from attnsearch.axes import RELATION_DIRECTIONS, RELATIONS, ROLES, Branch, HeadAddress, Site
from attnsearch.circuits import qk_relational, relation_tags, screening_of
from attnsearch.encoders import EncodedText
from attnsearch.evaluation import Accuracy, Exam, accuracy
from attnsearch.metrics.meaning import token_positions
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.task.captions import Caption
from attnsearch.task.scoring import shows_relation
from attnsearch.task.spec import COLOURS, OBJECT_PAIRS

MEASURES: Final = ("target", "asked", "binding", "shape", "colour")
"""Shares of images: with the relation steered to, with that of the caption, and as in
`evaluation`."""


class _Steered(NamedTuple):
    """How a batch is painted."""

    inside: AbstractContextManager[None]
    beside: Sequence[int] = ()
    """Samples that are painted with it, and left out of what is counted."""


_Way = Callable[[Sequence[int], str], _Steered]
"""From the samples of a batch and the relation they are steered to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Shares of images by `MEASURES`."""

    before: dict[str, Accuracy]
    after: dict[str, Accuracy]


class Tag(StrEnum):
    """What is said to be the tag of a relation."""

    PROMPT = "prompt"
    """What the heads put out for another prompt that states it, of a `Lender`'s objects."""
    IMAGES = "images"
    """The mean output of the heads over prompts that state it of the same colours."""
    WEIGHTS = "weights"
    """What the weights write for its words."""


class Lender(StrEnum):
    """Which objects a prompt names whose tag is taken."""

    COLOURS = "colours"
    """Other shapes in the same colours."""
    SHAPES = "shapes"
    """The same shapes with their colours swapped."""
    ORDER = "order"
    """The same two objects, the other first."""

    def lends(self, own: int, other: int) -> bool:
        """Whether one pair of objects serves another; indices into `OBJECT_PAIRS`."""
        mine, theirs = OBJECT_PAIRS[own], OBJECT_PAIRS[other]
        coloured = mine[0][0] == theirs[0][0]
        shapes = [shape for _, shape in mine], [shape for _, shape in theirs]
        match self:
            case Lender.COLOURS:
                return coloured and all(a != b for a, b in zip(*shapes, strict=True))
            case Lender.SHAPES:
                return not coloured and shapes[0] == shapes[1]
            case Lender.ORDER:
                return mine == theirs[::-1]


def steer_by_tag(
    checkpoint: Checkpoint,
    heads: frozenset[HeadAddress],
    *,
    tag: Tag = Tag.PROMPT,
    lender: Lender = Lender.COLOURS,
    to: str | None = None,
    strength: float = 1.0,
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> Steering:
    """Paint the prompt grid as asked, then with the heads' tag of another relation.

    `to` is one of `axes.RELATIONS`; None is the opposite of what each prompt asks for. Prompts
    that ask for the target themselves are left out.

    Raises:
        ConfigError: there is no such head or relation, the tag of a prompt is given a strength, or
            as of `Exam`.
    """
    check_heads(Ablation(heads=heads), [checkpoint.model.heads] * checkpoint.model.depth)
    exam = Exam(checkpoint, seeds=seeds, sampler=sampler, device=device)
    targets = _targets(exam, to)
    check_strength(tag, strength)
    match tag:
        case Tag.PROMPT:
            steered = _by_prompt(exam, heads, lender)
        case Tag.IMAGES:
            steered = _by_images(exam, heads, strength, device)
        case Tag.WEIGHTS:
            steered = _by_weights(checkpoint, exam, heads, strength, device)
    before = _painted(exam, targets, _as_asked, device, advance)
    return Steering(before=before, after=_painted(exam, targets, steered, device, advance))


def _by_prompt(exam: Exam, heads: frozenset[HeadAddress], lender: Lender) -> _Way:
    """Has the heads put out what they do for the lender of each prompt."""
    stated: dict[tuple[str, int], int] = {}
    for number, prompt in enumerate(exam.prompts):
        stated.setdefault((prompt.relation, prompt.pair), number)

    def lender_of(number: int, target: str) -> int:
        own = exam.caption(number).pair
        other = next(pair for pair in range(len(OBJECT_PAIRS)) if lender.lends(own, pair))
        return stated[target, other] * exam.seeds + number % exam.seeds

    def steered(samples: Sequence[int], target: str) -> _Steered:
        lenders = [lender_of(number, target) for number in samples]
        beside = sorted(set(lenders))
        source = torch.tensor([len(samples) + beside.index(each) for each in lenders])
        ablation = Ablation(heads=heads, mode=Mode.RESAMPLE)
        part = Part(ablation, slice(0, len(samples)), source)
        return _Steered(ablated(exam.model, [part]), beside)

    return steered


def _by_images(
    exam: Exam, heads: frozenset[HeadAddress], strength: float, device: torch.device
) -> _Way:
    """Holds the heads at their mean output over prompts of the target."""
    everywhere: dict[str, MeanOutputs] = {}
    stated: dict[tuple[str, str], MeanOutputs] = {}
    for colour in COLOURS:
        own = [n for n in range(len(exam)) if _first_colour(exam.caption(n)) == colour]
        everywhere[colour] = _means(exam, own, device)
        for name in RELATIONS:
            chosen = [n for n in own if exam.caption(n).relation == name]
            stated[colour, name] = _means(exam, chosen, device)

    def steered(samples: Sequence[int], target: str) -> _Steered:
        colour = _first_colour(exam.caption(samples[0]))  # a batch has one
        means = {
            key: torch.lerp(mean, stated[colour, target][key], strength)
            for key, mean in everywhere[colour].items()
        }
        return _Steered(ablated(exam.model, [Part(Ablation(heads=heads))], means=means))

    return steered


def _means(exam: Exam, samples: Sequence[int], device: torch.device) -> MeanOutputs:
    """What the heads put out for some samples, in the mean."""
    found: MeanOutputs = {}
    counts: dict[tuple[int, int], int] = {}
    for chosen in _batches(exam, samples, device):
        with mean_outputs(exam.model, found, counts):
            exam.paint(chosen)
    return found


def _first_colour(caption: Caption) -> str:
    (colour, _), _ = OBJECT_PAIRS[caption.pair]
    return colour


def _by_weights(
    checkpoint: Checkpoint,
    exam: Exam,
    heads: frozenset[HeadAddress],
    strength: float,
    device: torch.device,
) -> _Way:
    """Hides the phrase from the heads and adds their tag on the side of the target."""
    screening = screening_of(checkpoint)
    alignment, _ = qk_relational(*screening)
    signs = np.sign(alignment.projection)
    tags = relation_tags(screening).by_relation.to(device)
    phrase = tokens_of(exam.text.roles).to(device)
    positions = token_positions((exam.model.config.grid, exam.model.config.grid))

    @contextmanager
    def tagged(samples: Sequence[int], target: str) -> Iterator[None]:
        prompts = [number // exam.seeds for number in samples]
        along = torch.from_numpy(positions @ np.array(RELATION_DIRECTIONS[target])).to(device)
        off = Part(Ablation(heads=heads, mode=Mode.MASK))
        modules = exam.model.attention_modules(Site.CROSS)
        with ExitStack() as stack:
            stack.enter_context(ablated(exam.model, [off], hidden=phrase[prompts]))
            for head in sorted(heads):
                there = (along * signs[head.layer, head.head] > 1e-9)[:, None]
                written = tags[head.layer, head.head, RELATIONS.index(target)]
                hook = partial(_add, added=strength * there * written)
                stack.callback(modules[head.layer].register_forward_hook(hook).remove)
            yield

    return lambda samples, target: _Steered(tagged(samples, target))


def steer_by_text(
    checkpoint: Checkpoint,
    roles: frozenset[str],
    *,
    to: str | None = None,
    strength: float = 1.0,
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> Steering:
    """Paint the prompt grid as asked, then with token vectors moved to another relation.

    `roles` are of `axes.ROLES`; the rest is as of `steer_by_tag`.

    Raises:
        ConfigError: there is no such role or relation, or as of `Exam`.
    """
    check_roles(roles)
    exam = Exam(checkpoint, seeds=seeds, sampler=sampler, device=device)
    targets = _targets(exam, to)
    asked = [prompt.relation for prompt in exam.prompts]
    before = _painted(exam, targets, _as_asked, device, advance)
    exam.text = _moved(exam.text, roles, asked, targets, strength)
    after = _painted(exam, targets, _as_asked, device, advance)
    return Steering(before=before, after=after)


def _targets(exam: Exam, to: str | None) -> list[str]:
    """The relation each prompt is steered to."""
    check_relation(to)
    return [to or opposite_of(prompt.relation) for prompt in exam.prompts]


def _add(_: nn.Module, arguments: tuple[Any, ...], output: Tensor, added: Tensor) -> Tensor:
    """Add to the conditional rows of what an attention module gives."""
    changed = output.clone()
    for branch, rows in arguments[2]:
        if branch is Branch.COND:
            changed[rows] += added
    return changed


def _moved(
    text: EncodedText,
    roles: frozenset[str],
    asked: Sequence[str],
    targets: Sequence[str],
    strength: float,
) -> EncodedText:
    embedding = text.embedding.clone()
    for role in sorted(roles):
        words = text.roles[:, :, ROLES.index(role)]
        effects: dict[str, Tensor] = {}
        for name in set(asked) | set(targets):
            weight = words * torch.tensor([each == name for each in asked])[:, None]
            total = weight.sum().clamp(min=1)
            effects[name] = torch.einsum("pt,ptc->c", weight, text.embedding) / total
        shift = torch.stack(
            [effects[new] - effects[old] for old, new in zip(asked, targets, strict=True)]
        )
        embedding += strength * words[:, :, None] * shift[:, None]
    return text._replace(embedding=embedding)


def _painted(
    exam: Exam,
    targets: Sequence[str],
    way: _Way,
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, Accuracy]:
    """Shares of the images painted in a way, of prompts that ask for another relation.

    A batch is of one target and of one colour of object 1.
    """
    outcomes = []
    for target, colour in product(sorted(set(targets)), COLOURS):
        samples = [
            number
            for number in range(len(exam))
            if targets[number // exam.seeds] == target != exam.caption(number).relation
            and _first_colour(exam.caption(number)) == colour
        ]
        for chosen in _batches(exam, samples, device):
            steered = way(chosen, target)
            with steered.inside:
                images = exam.paint([*chosen, *steered.beside])[: len(chosen)]
            for score in exam.score(images, chosen):
                arrived = shows_relation(score, target, exam.task)
                outcomes.append(
                    [arrived, score.relation_loose, score.binding, score.shape, score.colour]
                )
            advance(len(chosen))
    found = np.array(outcomes)
    return {name: accuracy(found[:, number]) for number, name in enumerate(MEASURES)}


def _as_asked(_: Sequence[int], target: str) -> _Steered:
    del target
    return _Steered(nullcontext())


def _batches(exam: Exam, samples: Sequence[int], device: torch.device) -> Iterator[Sequence[int]]:
    rows = rows_together(exam.model.config, device)
    for start in range(0, len(samples), rows):
        yield samples[start : start + rows]
