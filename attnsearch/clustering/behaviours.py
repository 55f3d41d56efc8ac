"""All heads sorted into a number of behaviours, whether or not another model has the same.

One k-means is one of many partitions that are almost as good; what is given here is what those of
several seeds agree on, with the share of seeds that do, for every head.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array

from attnsearch.clustering.neighbours import Integers, spherical_kmeans
from attnsearch.clustering.signatures import Floats
from attnsearch.errors import ConfigError

_SEEDS: Final = 10
_HALVES: Final = 10
"""Pairs of overlapping samples by which a number of clusters is judged."""
_SHARE: Final = 0.8
"""Of the heads in each such sample."""
_CANDIDATES: Final = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviours:
    """Every head's behaviour."""

    label: Integers
    """[head], 0 being the behaviour of most heads."""
    agreement: Floats
    """[head] share of seeds that put the head there."""
    stability: dict[int, float]
    """Of every number of behaviours tried; one alone where the number was given."""


def find_behaviours(vectors: Floats, number: int | None = None, seed: int = 0) -> Behaviours:
    """Sort heads whose signatures are the rows of `vectors`, of unit length, [head, column].

    Without a `number`, it is the largest that is as stable as the most stable one, within a
    standard error. Stability is how alike two samples of 80 % of the heads are sorted where they
    overlap, by the adjusted Rand index. The same seed finds the same.

    Raises:
        ConfigError: FAISS is not installed, or there are fewer heads than behaviours.
    """
    if number is not None and not 1 <= number <= len(vectors):
        raise ConfigError(f"{len(vectors)} heads have no {number} behaviours")
    rng = np.random.default_rng(seed)
    tried = [number] if number is not None else [k for k in _CANDIDATES if 3 * k <= len(vectors)]
    if not tried:
        raise ConfigError(f"{len(vectors)} heads are too few to say how many behaviours they have")
    likeness = {k: _likeness(vectors, k, rng) for k in tried}
    mean = {k: float(found.mean()) for k, found in likeness.items()}
    best = max(mean, key=lambda k: mean[k])
    error = float(likeness[best].std(ddof=1) / np.sqrt(_HALVES))
    chosen = max(k for k in tried if mean[k] >= mean[best] - error)
    label, agreement = _consensus(vectors, chosen, rng)
    return Behaviours(label=label, agreement=agreement, stability=mean)


def adjusted_rand_index(one: Integers, other: Integers) -> float:
    """How alike two partitions [item] are: 1 if equal, 0 as expected by chance.

    Hubert and Arabie, Journal of Classification 2 (1985), equation 5.
    """
    table = _contingency(one, other)
    together = _pairs(table.data).sum()
    first, second = _pairs(table.sum(axis=1)).sum(), _pairs(table.sum(axis=0)).sum()
    expected = first * second / max(1.0, float(_pairs(np.array(len(one)))))
    largest = (first + second) / 2
    return 1.0 if largest == expected else float((together - expected) / (largest - expected))


def _likeness(vectors: Floats, number: int, rng: np.random.Generator) -> Floats:
    """Adjusted Rand indices of pairs of partitions, each of a sample of its own."""
    found = []
    for _ in range(_HALVES):
        kept = rng.random((2, len(vectors))) < _SHARE
        # Too few to have the number of clusters: take all.
        kept[kept.sum(axis=1) < number] = True
        labels = np.full(kept.shape, -1)
        for own, label in zip(kept, labels, strict=True):
            label[own] = spherical_kmeans(vectors[own], number, _seed(rng))
        both = kept.all(axis=0)
        found.append(adjusted_rand_index(labels[0, both], labels[1, both]))
    return np.array(found)


def _consensus(vectors: Floats, number: int, rng: np.random.Generator) -> tuple[Integers, Floats]:
    """The majority's cluster of every row and the share of it, over the seeds."""
    runs = [spherical_kmeans(vectors, number, _seed(rng)) for _ in range(_SEEDS)]
    # All are named after the one that is most like the others.
    likeness = [sum(adjusted_rand_index(run, other) for other in runs) for run in runs]
    model = runs[int(np.argmax(likeness))]
    votes = np.zeros((len(vectors), number))
    for run in runs:
        table = _contingency(run, model, number).toarray()
        name = linear_sum_assignment(table, maximize=True)[1]
        votes[np.arange(len(run)), name[run]] += 1
    label = votes.argmax(axis=1)
    order = np.argsort(-np.bincount(label, minlength=number), kind="stable")
    return np.argsort(order)[label], votes.max(axis=1) / _SEEDS


def _contingency(one: Integers, other: Integers, number: int | None = None) -> "coo_array":
    shape = (number, number) if number is not None else (one.max() + 1, other.max() + 1)
    table = coo_array((np.ones(len(one)), (one, other)), shape=shape)
    table.sum_duplicates()
    return table


def _pairs(counts: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> Floats:
    return np.asarray(counts * (counts - 1) / 2, dtype=np.float64)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
