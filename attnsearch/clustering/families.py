"""Heads of different models that do the same.

Two heads of different models are a pair when each is the other's most similar in its model, and
more similar than chance. Chance is what the neighbourhood says: the cosines of each of the two with
the other heads of the other's model. Directions drawn at random have such squared cosines in so
many dimensions, and there the cosine of a pair has a p-value. A head that is like many is thus no
pair with any of them, and what is found between two models does not depend on others. Of all pairs
of two models, at most 1 % are to be false (Benjamini-Hochberg). This is how genes of one origin are
told from look-alikes between genomes, by reciprocal best hits.

Families are the connected components of pairs, cut where heads are linked by a chain but are not
alike on average (average linkage).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import t

from attnsearch.clustering.signatures import Floats, unit_rows
from attnsearch.errors import ConfigError

_FALSE_PAIRS: Final = 0.01
"""Largest share of false pairs."""

Integers = npt.NDArray[np.intp]


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


class _Pairs(NamedTuple):
    """Heads of two models that are each other's most similar, rows of the signatures."""

    first: Integers
    second: Integers
    chance: Floats
    """The p-value of their cosine."""

    def within(self, threshold: float) -> "_Pairs":
        kept = self.chance <= threshold
        return _Pairs(self.first[kept], self.second[kept], self.chance[kept])


def find_families(
    vectors: Floats,
    models: Sequence[str],
    *,
    draws: int = 199,
    seed: int = 0,
) -> tuple[Family, ...]:
    """Families among the heads whose signatures are the rows of `vectors`, [head, column].

    Rows are of unit length, as of `standardised`; `models` says whose each head is. Widest first.
    `draws` of unrelated heads give the p-values; the same seed finds the same. Memory grows with
    the product of the heads of two models.

    Raises:
        ConfigError: the heads are of fewer than two models.
    """
    owners = np.unique(np.asarray(models), return_inverse=True)[1].reshape(-1)
    if owners.max(initial=0) < 1:
        raise ConfigError("families need heads of at least two models")
    heads = [np.flatnonzero(owners == model) for model in range(owners.max() + 1)]
    squares = _squares(vectors, heads)
    found, thresholds = [], []
    for own, other, pairs in _all_pairs(vectors, heads, squares):
        thresholds.append(_threshold(pairs, len(own) * len(other)))
        found.append(pairs.within(thresholds[-1]))
    rng = np.random.default_rng(seed)
    dimensions = max(2, round(1 / max(np.median(squares), 1 / vectors.shape[1])))
    widest = np.array(
        [
            _widest(unit_rows(rng.standard_normal((len(vectors), dimensions))), heads, thresholds)
            for _ in range(draws)
        ]
    )
    families = [
        _family(members, vectors, owners, widest)
        for chain in _components(found, len(vectors))
        for members in _cut(chain, vectors, owners, heads, squares)
    ]
    families.sort(key=lambda family: (-family.coverage, -family.cohesion, family.members))
    return tuple(families)


def _family(
    members: Integers, vectors: Floats, owners: Integers, widest: npt.NDArray[np.int64]
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


def _all_pairs(
    vectors: Floats, heads: Sequence[Integers], squares: Floats
) -> Iterator[tuple[Integers, Integers, _Pairs]]:
    """Of every two models their heads, and those that are each other's most similar."""
    for a, b in combinations(range(len(heads)), 2):
        one, other = heads[a], heads[b]
        cosines = vectors[one] @ vectors[other].T
        best = cosines.argmax(axis=1)
        rows = np.flatnonzero(cosines.argmax(axis=0)[best] == np.arange(len(best)))
        columns = best[rows]
        cosine = cosines[rows, columns]
        around = _around(
            squares[one[rows], b] * len(other) + squares[other[columns], a] * len(one),
            cosine,
            len(one) + len(other),
        )
        yield one, other, _Pairs(one[rows], other[columns], _chance(cosine, around))


def _squares(vectors: Floats, heads: Sequence[Integers]) -> Floats:
    """Mean squared cosine of every head with the heads of every model, [head, model].

    Of its own model a head has itself among them.
    """
    return np.stack([((vectors @ vectors[own].T) ** 2).mean(axis=1) for own in heads], axis=1)


def _around(total: Floats, cosine: Floats, count: int | Integers) -> Floats:
    """Mean of squared cosines of two heads with the other's model, but for that of the two."""
    return np.asarray(np.maximum(total - 2 * cosine**2, 0) / np.maximum(1, np.subtract(count, 2)))


def _freedom(around: Floats) -> Floats:
    """One less than the dimensions in which squared cosines have this mean."""
    return np.maximum(1 / np.maximum(around, 1e-6) - 1, 1)


def _chance(cosine: Floats, around: Floats) -> Floats:
    """Chance of such a cosine of random directions, where squared cosines have this mean.

    The mean is 1 / dimensions; of two random directions cosine * sqrt((d - 1) / (1 - cosine^2))
    is Student's t of d - 1 degrees of freedom (Muirhead, Aspects of Multivariate Statistical
    Theory, 1982, theorem 1.5.7).
    """
    freedom = _freedom(around)
    return np.asarray(t.sf(cosine * np.sqrt(freedom / np.maximum(1 - cosine**2, 1e-9)), freedom))


def _threshold(pairs: _Pairs, comparisons: int) -> float:
    """The largest p-value up to which few pairs are false; -1 where all may be.

    Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995), of all comparisons of two models: those
    that are no pair count as not found.
    """
    rising = np.sort(pairs.chance)
    few = np.flatnonzero(rising * comparisons <= _FALSE_PAIRS * np.arange(1, len(rising) + 1))
    return float(rising[few[-1]]) if len(few) else -1.0


def _components(pairs: Sequence[_Pairs], heads: int) -> list[Integers]:
    """The families that pairs make, each its heads in order."""
    first, second = (np.concatenate([each[side] for each in pairs]) for side in (0, 1))
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(heads, heads))
    count, label = connected_components(graph, directed=False)
    sizes = np.bincount(label, minlength=count)
    return [np.flatnonzero(label == number) for number in np.flatnonzero(sizes > 1)]


def _cut(
    chain: Integers,
    vectors: Floats,
    owners: Integers,
    heads: Sequence[Integers],
    squares: Floats,
) -> list[Integers]:
    """The parts of a chain of pairs whose heads are on average more alike than chance.

    Chance is the largest of the cosines of a head with the heads of a model, in 99 %.
    """
    counts = np.array([len(own) for own in heads])[owners[chain]]
    cosines = vectors[chain] @ vectors[chain].T
    # [i, j]: squared cosines of i with the model of j, added up.
    total = squares[np.ix_(chain, owners[chain])] * counts
    freedom = _freedom(_around(total + total.T, cosines, counts + counts[:, None]))
    largest = t.isf(_FALSE_PAIRS / np.minimum(counts, counts[:, None]), freedom)
    beyond = largest / np.sqrt(freedom + largest**2)
    # Linkage wants distances, which are not below 0.
    far = 2 + beyond - cosines
    label = fcluster(linkage(far[np.triu_indices(len(chain), 1)], "average"), 2, "distance")
    parts = [chain[label == number] for number in np.unique(label)]
    return [part for part in parts if len(part) > 1]


def _widest(vectors: Floats, heads: Sequence[Integers], thresholds: Sequence[float]) -> int:
    """In how many models the widest family of unrelated heads has members; 1 where there is none.

    As lenient as what was found, or as these heads themselves would have made it.
    """
    squares = _squares(vectors, heads)
    kept = [
        pairs.within(max(threshold, _threshold(pairs, len(own) * len(other))))
        for (own, other, pairs), threshold in zip(
            _all_pairs(vectors, heads, squares), thresholds, strict=True
        )
    ]
    owner = np.empty(len(vectors), dtype=np.intp)
    for model, own in enumerate(heads):
        owner[own] = model
    families = _components(kept, len(vectors))
    return max((len(np.unique(owner[family])) for family in families), default=1)
