"""Heads of different models that do the same.

Two heads of different models are a pair when each is the other's most similar in its model, and
more similar than chance: above a floor that lets through at most 5 % of false pairs, by the number
that unrelated heads would make (a false discovery rate). Unrelated heads are directions drawn at
random in so many dimensions that their squared cosines have the mean found between the heads of
one model; columns depend on each other, so these are fewer than there are columns. Families are
the connected components of pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from attnsearch.clustering.signatures import Floats, unit_rows
from attnsearch.errors import ConfigError

_FALSE_PAIRS: Final = 0.05
"""Largest share of false pairs."""

Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]
"""First and second heads, and their cosines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Heads that do the same."""

    members: tuple[int, ...]
    """Rows of the signatures."""
    coverage: int
    """In how many models it has a member."""
    cohesion: float
    """Mean cosine of its members with each other."""
    p_value: float
    """Chance that the widest family of unrelated heads covers as many models."""
    exemplar: int
    """The member most like the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """What was found, widest first, and the floor it was found with."""

    families: tuple[Family, ...]
    floor: float
    """Smallest cosine of a pair; infinite where there are none."""


def find_families(
    vectors: Floats,
    models: Sequence[str],
    *,
    draws: int = 199,
    seed: int = 0,
) -> Families:
    """Families among the heads whose signatures are the rows of `vectors`, [head, column].

    Rows are of unit length, as of `standardised`; `models` says whose each head is. The same seed
    finds the same. Memory grows with the heads of the largest model times all heads.

    Raises:
        ConfigError: the heads are of fewer than two models.
    """
    owners = np.unique(np.asarray(models), return_inverse=True)[1].reshape(-1)
    if owners.max(initial=0) < 1:
        raise ConfigError("families need heads of at least two models")
    rng = np.random.default_rng(seed)
    dimensions = _dimensions(vectors, owners)
    null = [
        _pairs(unit_rows(rng.standard_normal((len(vectors), dimensions))), owners)
        for _ in range(draws)
    ]
    found_pairs = _pairs(vectors, owners)
    floor = _floor(found_pairs[2], np.concatenate([pairs[2] for pairs in null]), draws)
    widest = np.array([_widest(pairs, floor, owners) for pairs in null])
    found = [
        _family(members, vectors, owners, widest)
        for members in _components(found_pairs, floor, len(vectors))
    ]
    found.sort(key=lambda family: (-family.coverage, -family.cohesion, family.members))
    return Families(families=tuple(found), floor=floor)


def _family(
    members: npt.NDArray[np.intp], vectors: Floats, owners: npt.NDArray[np.intp], widest: Floats
) -> Family:
    cosines = vectors[members] @ vectors[members].T
    count = len(members)
    coverage = len(np.unique(owners[members]))
    return Family(
        members=tuple(int(member) for member in members),
        coverage=coverage,
        cohesion=float((cosines.sum() - np.trace(cosines)) / (count * (count - 1))),
        p_value=float((1 + (widest >= coverage).sum()) / (1 + len(widest))),
        exemplar=int(members[cosines.sum(axis=0).argmax()]),
    )


def _pairs(vectors: Floats, owners: npt.NDArray[np.intp]) -> Pairs:
    """Heads of different models that are each other's most similar."""
    rows = np.arange(len(vectors))
    best = np.empty((len(vectors), owners.max() + 1), dtype=np.intp)
    cosine = np.empty(best.shape)
    for model in range(best.shape[1]):
        own = np.flatnonzero(owners == model)
        similarity = vectors @ vectors[own].T
        nearest = similarity.argmax(axis=1)
        best[:, model], cosine[:, model] = own[nearest], similarity[rows, nearest]
    # Within its own model a head is its own most similar, which is no pair.
    mutual = best[best, owners[:, None]] == rows[:, None]
    first, with_model = np.nonzero(mutual & (rows[:, None] < best))
    return first, best[first, with_model], cosine[first, with_model]


def _floor(found: Floats, null: Floats, draws: int) -> float:
    """The smallest cosine from which on the pairs of null draws are few beside those found.

    Infinite where they never are.
    """
    falling, null = np.sort(found)[::-1], np.sort(null)
    false = (len(null) - np.searchsorted(null, falling)) / draws
    few = np.flatnonzero(false <= _FALSE_PAIRS * np.arange(1, len(falling) + 1))
    return float(falling[few[-1]]) if len(few) else np.inf


def _components(pairs: Pairs, floor: float, heads: int) -> list[npt.NDArray[np.intp]]:
    """The families of pairs above a floor, each its heads in order."""
    first, second, cosine = pairs
    kept = cosine >= floor
    graph = coo_array((cosine[kept], (first[kept], second[kept])), shape=(heads, heads))
    count, label = connected_components(graph, directed=False)
    sizes = np.bincount(label, minlength=count)
    return [np.flatnonzero(label == number) for number in np.flatnonzero(sizes > 1)]


def _widest(pairs: Pairs, floor: float, owners: npt.NDArray[np.intp]) -> int:
    """In how many models the widest family has members; 1 where there is none."""
    families = _components(pairs, floor, len(owners))
    return max((len(np.unique(owners[family])) for family in families), default=1)


def _dimensions(vectors: Floats, owners: npt.NDArray[np.intp]) -> int:
    """In how many dimensions random directions have such squared cosines: 1 / their mean."""
    squares = [
        (vectors[own] @ vectors[own].T)[np.triu_indices(len(own), 1)] ** 2
        for own in (np.flatnonzero(owners == model) for model in range(owners.max() + 1))
    ]
    mean = np.concatenate(squares).mean() if any(map(len, squares)) else 0.0
    return max(2, round(1 / mean)) if mean > 0 else vectors.shape[1]
