"""Moving objects to where no caption asked: by a tag on the canvas, or in the text.

By the tag of images: instead of what some heads put out there is

    mean + strength (mean_m - mean)

at every step and image token, with mean over all prompts and mean_m over those that state the
target relation m. At strength 1 the heads say of every prompt what they say of the target on
average, whatever its objects.

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
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from attnsearch.ablation.effects import opposite_of, phrase_tokens, rows_together
from attnsearch.ablation.hooks import (
    Ablation,
    MeanOutputs,
    Mode,
    Part,
    ablated,
    mean_outputs,
)
from attnsearch.axes import RELATION_DIRECTIONS, RELATIONS, ROLES, Branch, HeadAddress, Site
from attnsearch.circuits import circuit_of, relation_tags, screening_of
from attnsearch.encoders import EncodedText
from attnsearch.errors import ConfigError
from attnsearch.evaluation import Accuracy, Exam, accuracy
from attnsearch.metrics.meaning import token_positions
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.task.scoring import relation_holds

MEASURES: Final = ("target", "asked", "binding", "shape", "colour")
"""Shares of images: with the relation steered to, with that of the caption, and as in
`evaluation`."""

Within = Callable[[Sequence[int], str], AbstractContextManager[None]]
"""From the samples of a batch and the relation they are steered to, to what it is painted in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Shares of images by `MEASURES`."""

    before: dict[str, Accuracy]
    after: dict[str, Accuracy]


class Tag(StrEnum):
    """What is said to be the tag of a relation."""

    IMAGES = "images"
    """The mean output of the heads over prompts that state it."""
    WEIGHTS = "weights"
    """What the weights write for its words."""


def steer_by_tag(
    checkpoint: Checkpoint,
    heads: frozenset[HeadAddress],
    *,
    tag: Tag = Tag.IMAGES,
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
        ConfigError: there is no such head or relation, or as of `Exam`.
    """
    exam = Exam(checkpoint, seeds=seeds, sampler=sampler, device=device)
    targets = _targets(exam, to)
    if tag is Tag.WEIGHTS:
        steered = _by_weights(checkpoint, exam, heads, strength, device)
    else:
        steered = _by_images(exam, heads, strength, device)
    before = _painted(exam, targets, lambda *_: nullcontext(), device, advance)
    return Steering(before=before, after=_painted(exam, targets, steered, device, advance))


def _by_images(
    exam: Exam, heads: frozenset[HeadAddress], strength: float, device: torch.device
) -> Within:
    """Holds the heads at their mean output over prompts of the target."""
    everywhere: MeanOutputs = {}
    counted: dict[tuple[int, int], int] = {}
    stated: dict[str, MeanOutputs] = {}
    for name in sorted({prompt.relation for prompt in exam.prompts}):
        samples = [n for n in range(len(exam)) if exam.caption(n).relation == name]
        own: MeanOutputs = {}
        counts: dict[tuple[int, int], int] = {}
        for chosen in _batches(exam, samples, device):
            with mean_outputs(exam.model, own, counts):
                exam.paint(chosen)
        for key, mean in own.items():
            before = counted.get(key, 0)
            counted[key] = before + counts[key]
            share = counts[key] / counted[key]
            everywhere[key] = torch.lerp(everywhere.get(key, mean), mean, share)
        stated[name] = own

    def steered(_: Sequence[int], target: str) -> AbstractContextManager[None]:
        means = {
            key: torch.lerp(mean, stated[target][key], strength) for key, mean in everywhere.items()
        }
        return ablated(exam.model, [Part(Ablation(heads=heads))], means=means)

    return steered


def _by_weights(
    checkpoint: Checkpoint,
    exam: Exam,
    heads: frozenset[HeadAddress],
    strength: float,
    device: torch.device,
) -> Within:
    """Hides the phrase from the heads and adds their tag on the side of the target."""
    screening = screening_of(checkpoint)
    signs = {
        writer.address: float(np.sign(writer.projection))
        for writer in circuit_of(screening, heads).writers
    }
    tags = relation_tags(screening).by_relation.to(device)
    phrase = phrase_tokens(exam.text.roles).to(device)
    positions = token_positions((exam.model.config.grid, exam.model.config.grid))

    @contextmanager
    def steered(samples: Sequence[int], target: str) -> Iterator[None]:
        prompts = [number // exam.seeds for number in samples]
        along = torch.from_numpy(positions @ np.array(RELATION_DIRECTIONS[target])).to(device)
        off = Part(Ablation(heads=heads, mode=Mode.MASK))
        modules = exam.model.attention_modules(Site.CROSS)
        with ExitStack() as stack:
            stack.enter_context(ablated(exam.model, [off], hidden=phrase[prompts]))
            for head in sorted(heads):
                there = (along * signs[head] > 1e-9)[:, None]
                written = tags[head.layer, head.head, RELATIONS.index(target)]
                hook = partial(_add, added=strength * there * written)
                stack.callback(modules[head.layer].register_forward_hook(hook).remove)
            yield

    return steered


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
    if unknown := sorted(roles - set(ROLES)):
        raise ConfigError(f"there is no role {unknown[0]!r}; roles: {', '.join(ROLES)}")
    exam = Exam(checkpoint, seeds=seeds, sampler=sampler, device=device)
    targets = _targets(exam, to)
    asked = [prompt.relation for prompt in exam.prompts]
    before = _painted(exam, targets, lambda *_: nullcontext(), device, advance)
    exam.text = _moved(exam.text, roles, asked, targets, strength)
    after = _painted(exam, targets, lambda *_: nullcontext(), device, advance)
    return Steering(before=before, after=after)


def _targets(exam: Exam, to: str | None) -> list[str]:
    """The relation each prompt is steered to."""
    if to is not None and to not in RELATIONS:
        raise ConfigError(f"there is no relation {to!r}; relations: {', '.join(RELATIONS)}")
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
    within: Within,
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, Accuracy]:
    """Shares of the images painted within a context, of prompts that ask for another relation."""
    outcomes = []
    for target in sorted(set(targets)):
        samples = [
            number
            for number in range(len(exam))
            if targets[number // exam.seeds] == target != exam.caption(number).relation
        ]
        for chosen in _batches(exam, samples, device):
            with within(chosen, target):
                images = exam.paint(chosen)
            for score in exam.score(images, chosen):
                arrived = False
                if score.object1 is not None and score.object2 is not None:
                    dx, dy = np.subtract(score.object1.centre, score.object2.centre)
                    arrived = relation_holds(dx, dy, target, exam.task.axis_tolerance)[1]
                outcomes.append(
                    [arrived, score.relation_loose, score.binding, score.shape, score.colour]
                )
            advance(len(chosen))
    found = np.array(outcomes)
    return {name: accuracy(found[:, number]) for number, name in enumerate(MEASURES)}


def _batches(exam: Exam, samples: Sequence[int], device: torch.device) -> Iterator[Sequence[int]]:
    rows = rows_together(exam.model.config, device)
    for start in range(0, len(samples), rows):
        yield samples[start : start + rows]
