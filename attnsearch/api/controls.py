"""What control sets of heads do, which others are held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from attnsearch.ablation import Effect

RELATION: Final = "relation_loose"
"""The share of images that sets of heads are ordered by and held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Sets of as many other heads that a set is held against."""

    sets: int
    difference: float
    """Median change of the share of images with the relation."""
    low: float
    """Least of these changes."""
    high: float
    """Largest of them."""
    p_value: float
    """Permutation test: (harmful + 1) / (sets + 1), with harmful the number of sets without which
    the share falls as much as without the heads asked for, or more."""
    after: dict[str, float]
    """Median share of images, by measure."""


def held_against(difference: float, controls: "Sequence[Mapping[str, Effect]]") -> Controls:
    """What control sets did, and the share of them that harm the relation by `difference` or more.

    At least one control is needed; the formula of p is that of `Controls.p_value`.
    """
    changes = [control[RELATION].difference for control in controls]
    harmful = sum(change <= difference for change in changes)
    return Controls(
        sets=len(changes),
        difference=median(changes),
        low=min(changes),
        high=max(changes),
        p_value=(harmful + 1) / (len(changes) + 1),
        after={
            measure: median(control[measure].after for control in controls)
            for measure in controls[0]
        },
    )
