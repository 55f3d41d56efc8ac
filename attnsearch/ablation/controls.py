"""What heads are held against: as many others, drawn anywhere or in the same layers."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

from attnsearch.axes import HeadAddress

Heads = frozenset[HeadAddress]


def random_sets(every: Sequence[HeadAddress], heads: Heads, count: int) -> list[Heads]:
    """So many different sets of as many others, or all there are; the same every time."""
    others = [head for head in every if head not in heads]
    rng = np.random.default_rng(0)
    found: dict[Heads, None] = {}
    wanted = min(count, comb(len(others), len(heads)))
    while len(found) < wanted:
        drawn = rng.choice(len(others), size=len(heads), replace=False)
        found[frozenset(others[number] for number in drawn)] = None
    return list(found)


def layer_sets(every: Sequence[HeadAddress], heads: Heads, count: int) -> list[Heads]:
    """The same of sets that have as many heads in each layer."""
    layers = sorted(head.layer for head in heads)
    rng = np.random.default_rng(0)
    choices = [
        [
            frozenset(own)
            for own in combinations(
                [head for head in every if head.layer == layer and head not in heads],
                layers.count(layer),
            )
        ]
        for layer in sorted(set(layers))
    ]
    if not all(choices):
        return []
    total = 1
    for own in choices:
        total *= len(own)
    found: dict[Heads, None] = {}
    while len(found) < min(count, total):
        drawn = [own[int(rng.integers(len(own)))] for own in choices]
        found[frozenset().union(*drawn)] = None
    return list(found)
