"""What is to be switched off, as a user says it; refused here before torch is there."""

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from attnsearch.axes import RELATIONS, ROLES, Branch, HeadAddress
from attnsearch.errors import ConfigError


class Mode(StrEnum):
    """What takes the place of what a head puts out."""

    ZERO = "zero"
    """Nothing."""
    MEAN = "mean"
    """Its mean over prompts and seeds, at the same step and position."""
    MASK = "mask"
    """What it puts out when it may not attend to some words (arXiv 2601.06338)."""
    RESAMPLE = "resample"
    """What it puts out for another prompt, drawn at random, from the same noise."""
    OPPOSITE = "opposite"
    """What it puts out for the same objects in the opposite relation, from the same noise."""
    SCALE = "scale"
    """Its own output times a factor."""

    @property
    def borrows(self) -> bool:
        """Whether it comes from another sample of the batch."""
        return self in (Mode.RESAMPLE, Mode.OPPOSITE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Heads that are switched off together.

    Raises:
        ConfigError: the last step is before the first, the factor is no number, or a head of `into`
            does not come after all those that are switched off.
    """

    heads: frozenset[HeadAddress]
    """Of cross-attention."""
    mode: Mode = Mode.MEAN
    branches: frozenset[Branch] = frozenset({Branch.COND})
    """Of classifier-free guidance."""
    first_step: int = 0
    last_step: int | None = None
    """Inclusive; None for the last there is."""
    factor: float = 1.0
    """For `Mode.SCALE`."""
    hide: frozenset[str] = frozenset()
    """For `Mode.MASK`: roles of the words it may not attend to; none for the relation phrase."""
    into: frozenset[HeadAddress] = frozenset()
    """Heads of later layers. If any, the heads are off only in what the queries of these read of
    them along the residual stream, not through what lies between; all else sees them as they are.
    """

    def __post_init__(self) -> None:
        if self.last_step is not None and self.last_step < self.first_step:
            raise ConfigError(
                f"the last step, {self.last_step}, is before the first, {self.first_step}"
            )
        if not isfinite(self.factor):
            raise ConfigError(f"the factor must be a finite number, not {self.factor}")
        if self.heads and self.into:
            last, first = max(self.heads), min(self.into)
            if first.layer <= last.layer:
                raise ConfigError(
                    f"{first} does not come after {last}: heads are read by those of later layers"
                )

    def is_on(self, step: int) -> bool:
        """Whether the heads are off at this step."""
        return self.first_step <= step and (self.last_step is None or step <= self.last_step)


def check_roles(roles: frozenset[str]) -> None:
    """Refuse roles that the task has not.

    Raises:
        ConfigError: naming the first.
    """
    if unknown := sorted(roles - set(ROLES)):
        raise ConfigError(f"there is no role {unknown[0]!r}; roles: {', '.join(ROLES)}")


def check_relation(relation: str | None) -> None:
    """Refuse a relation that the task has not; None is none in particular.

    Raises:
        ConfigError: naming it.
    """
    if relation is not None and relation not in RELATIONS:
        raise ConfigError(f"there is no relation {relation!r}; relations: {', '.join(RELATIONS)}")


def check_strength(tag: str, strength: float) -> None:
    """Refuse a strength for a tag that has none; `tag` is the value of a `Tag`.

    Raises:
        ConfigError: it is that of a prompt.
    """
    if tag == "prompt" and strength != 1:
        raise ConfigError("the tag of a prompt is whole; strength is for those of images, weights")
