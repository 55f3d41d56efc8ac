"""What a score is computed from: numbers of every prompt, and the label that a null shuffles.

Prompts are what is drawn at random; seeds are inside of them, averaged. Evidence is asked for the
score under any weights of the prompts, which is all that a bootstrap or a jackknife needs, and
for the score under labels without meaning. Arrays of evidence are [prompt, step, head, ...], with
the heads of all layers in a row; those that do not count are zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from attnsearch.metrics.meaning import random_meaning

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

Null = tuple[Floats, Floats]
"""Observed [step, head], and the same under shuffled labels [draw, step, head]."""

DRAWS_AT_ONCE: Final = 64
"""Of weights, where every draw has maps of its own."""


class Evidence(Protocol):
    """The evidence of one metric about the heads of one scan."""

    @property
    def known(self) -> Flags:
        """[prompt] whether it counts."""

    @property
    def strata(self) -> npt.NDArray[np.intp]:
        """[prompt] the part of the design it belongs to, within which prompts are drawn."""

    @property
    def signed(self) -> bool:
        """Whether below zero is as much of a finding as above."""

    @property
    def repeats(self) -> bool:
        """Whether a prompt may be drawn twice without looking like evidence."""

    @property
    def shuffled(self) -> str | None:
        """The label that the null shuffles; None where there is no null."""

    def part(self, prompts: Any, steps: Any, heads: Any) -> "Evidence":
        """The same of some prompts, steps and heads, by indices."""

    def averaged(self) -> "Evidence":
        """With one step, the mean of the maps of all."""

    def scores(self, weights: Floats) -> Floats:
        """[draw, step, head] of weights [draw, prompt], which sum to 1 over those that count."""

    def null(self, chosen: Flags, draws: int, generator: np.random.Generator) -> Null:
        """Of the chosen prompts, each with the same weight; only where something is shuffled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What kinds of evidence have in common: an array, and what is known of its prompts."""

    values: Floats
    """[prompt, step, head, ...]"""
    known: Flags
    strata: npt.NDArray[np.intp]
    signed: bool = True
    repeats: bool = True
    shuffled: str | None = None

    def part(self, prompts: Any, steps: Any, heads: Any) -> Self:
        """See `Evidence`."""
        return replace(
            self,
            values=self.values[prompts][:, steps][:, :, heads],
            known=self.known[prompts],
            strata=self.strata[prompts],
        )

    def averaged(self) -> Self:
        """See `Evidence`."""
        return replace(self, values=self.values.mean(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean(Measured):
    """The mean over prompts of a number [prompt, step, head].

    The null: numbers are as likely as their negatives, as where a number says how two things
    differ that might as well be swapped.
    """

    def scores(self, weights: Floats) -> Floats:
        """See `Evidence`."""
        return weighted(weights, self.values)

    def null(self, chosen: Flags, draws: int, generator: np.random.Generator) -> Null:
        """See `Evidence`."""
        signs = generator.choice([-1.0, 1.0], (draws, len(chosen)))
        share = chosen / chosen.sum()
        return self.scores(share[None])[0], self.scores(signs * share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directed(Measured):
    """The covariance over prompts of vectors [prompt, step, head, xy] with where they should point.

    The null: direction words of random meaning, see `attnsearch.metrics.meaning`.
    """

    target: Floats
    """[prompt, xy]"""
    words: Floats
    """[prompt, word] how much of each word is in the prompt."""

    def part(self, prompts: Any, steps: Any, heads: Any) -> Self:
        """See `Evidence`."""
        # super() does not know the class that dataclass(slots=True) makes.
        less = Measured.part(self, prompts, steps, heads)
        return replace(less, target=self.target[prompts], words=self.words[prompts])

    def scores(self, weights: Floats) -> Floats:
        """See `Evidence`."""
        along = np.einsum("pshc,pc->psh", self.values, self.target)
        means = weighted(weights, self.values)
        return weighted(weights, along) - np.einsum("dshc,dc->dsh", means, weights @ self.target)

    def null(self, chosen: Flags, draws: int, generator: np.random.Generator) -> Null:
        """See `Evidence`."""
        _, steps, heads, _ = self.values.shape
        flat = self.values[chosen].reshape(chosen.sum(), -1, 2)
        observed, null = random_meaning(
            flat, self.target[chosen], self.words[chosen], draws, generator
        )
        return observed.reshape(steps, heads), null.reshape(draws, steps, heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramped(Measured):
    """How much mean maps [prompt, step, head, basis] by relation look like a ramp along it.

    Cosine, projection <map, T> / |T|, or energy |map|, mean over relations, with the constant left
    out. The null of the first two: direction words of random meaning.
    """

    kind: str
    ramps: Floats
    """[basis, xy] of unit length."""
    relation: npt.NDArray[np.intp]
    """[prompt]"""
    directions: Floats
    """[relation, xy] unit vectors."""
    words: Floats
    """[relation, word]"""

    def part(self, prompts: Any, steps: Any, heads: Any) -> Self:
        """See `Evidence`."""
        less = Measured.part(self, prompts, steps, heads)
        return replace(less, relation=self.relation[prompts])

    def scores(self, weights: Floats) -> Floats:
        """See `Evidence`."""
        rows = [
            self._scores(weights[begin : begin + DRAWS_AT_ONCE])
            for begin in range(0, len(weights), DRAWS_AT_ONCE)
        ]
        return np.concatenate(rows)

    def null(self, chosen: Flags, draws: int, generator: np.random.Generator) -> Null:
        """See `Evidence`."""
        along, present = self._along((chosen / chosen.sum())[None])
        present = present[0]
        _, steps, heads, _ = self.values.shape
        observed, null = random_meaning(
            along[0][present].reshape(present.sum(), -1, 2),
            self.directions[present],
            self.words[present],
            draws,
            generator,
        )
        return observed.reshape(steps, heads), null.reshape(draws, steps, heads)

    def _scores(self, weights: Floats) -> Floats:
        if self.kind == "energy":
            means, present = self._means(weights)
            sizes: Floats = np.linalg.norm(means, axis=-1).mean(axis=1, where=_wide(present))
            return sizes
        along, present = self._along(weights)
        dots = np.einsum("drshc,rc->drsh", along, self.directions)
        return np.asarray(dots.mean(axis=1, where=_wide(present)))

    def _along(self, weights: Floats) -> tuple[Floats, Flags]:
        """Components [draw, relation, step, head, xy] along the ramps, and which are there."""
        means, present = self._means(weights)
        along = means @ self.ramps
        if self.kind == "cosine":
            size = np.linalg.norm(means, axis=-1, keepdims=True)
            along = along / np.where(size > 0, size, 1)
        return along, present

    def _means(self, weights: Floats) -> tuple[Floats, Flags]:
        """Mean maps [draw, relation, step, head, basis] by relation, and which relations are in."""
        members = self.relation == np.arange(len(self.directions))[:, None]
        shares = weights[:, None] * members
        mass = shares.sum(axis=2)
        shares = shares / np.where(mass > 0, mass, 1)[..., None]
        flat = shares.reshape(-1, shares.shape[-1])
        return weighted(flat, self.values).reshape(*mass.shape, *self.values.shape[1:]), mass > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed(Measured):
    """The size of the part of vectors [prompt, step, head, feature] that all prompts share.

    sqrt(<v_p, v_q>), mean over pairs of different prompts, so that chance alone gives 0; of a
    negative mean the root of its size, negative. The null: vectors are as likely as their
    negatives.
    """

    signed: bool = False

    def scores(self, weights: Floats) -> Floats:
        """See `Evidence`."""
        return _root(self._pairs(weights))

    def null(self, chosen: Flags, draws: int, generator: np.random.Generator) -> Null:
        """See `Evidence`."""
        signs = generator.choice([-1.0, 1.0], (draws, len(chosen)))
        share = chosen / chosen.sum()
        return self.scores(share[None])[0], _root(self._pairs(signs * share))

    def _pairs(self, weights: Floats) -> Floats:
        own = np.square(weights)
        summed: Floats = np.zeros((len(weights), *self.values.shape[1:3]))
        for feature in range(self.values.shape[-1]):
            summed += np.square(weighted(weights, self.values[..., feature]))
        summed -= weighted(own, np.square(self.values).sum(axis=-1))
        return summed / np.maximum(1 - own.sum(axis=1), 1e-12)[:, None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """Arithmetic on scores of the same prompts; a null where all parts shuffle the same label."""

    work: Callable[..., Floats]
    parts: tuple[Evidence, ...]
    signed: bool = True

    @property
    def known(self) -> Flags:
        """See `Evidence`."""
        return np.logical_and.reduce([part.known for part in self.parts])

    @property
    def strata(self) -> npt.NDArray[np.intp]:
        """See `Evidence`: alike in all parts."""
        columns = np.stack([part.strata for part in self.parts], axis=1)
        return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)

    @property
    def repeats(self) -> bool:
        """See `Evidence`."""
        return all(part.repeats for part in self.parts)

    @property
    def shuffled(self) -> str | None:
        """See `Evidence`."""
        labels = {part.shuffled for part in self.parts}
        return labels.pop() if len(labels) == 1 else None

    def part(self, prompts: Any, steps: Any, heads: Any) -> Self:
        """See `Evidence`."""
        return replace(self, parts=tuple(one.part(prompts, steps, heads) for one in self.parts))

    def averaged(self) -> Self:
        """See `Evidence`."""
        return replace(self, parts=tuple(one.averaged() for one in self.parts))

    def scores(self, weights: Floats) -> Floats:
        """See `Evidence`; not finite where work is a division by zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.work(*(part.scores(weights) for part in self.parts))

    def null(self, chosen: Flags, draws: int, generator: np.random.Generator) -> Null:
        """See `Evidence`; labels are shuffled in all parts alike."""
        state = generator.bit_generator.state
        observed, null = [], []
        for part in self.parts:
            generator.bit_generator.state = state
            one, more = part.null(chosen, draws, generator)
            observed.append(one)
            null.append(more)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.work(*observed), self.work(*null)


def weighted(weights: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weighted sums over the first axis: [draw, ...]."""
    flat = values.reshape(len(values), -1)
    return (weights @ flat).reshape(len(weights), *values.shape[1:])


def _wide(present: Flags) -> Flags:
    return present[:, :, None, None]


def _root(values: Floats) -> Floats:
    return np.sign(values) * np.sqrt(np.abs(values))
