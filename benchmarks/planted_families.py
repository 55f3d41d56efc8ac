"""Are heads that models share found as families, and none where nothing is shared?

python benchmarks/planted_families.py [--stores 20] [--output FILE]

Stores of 4, 6 and 12 models of different sizes, made by hand, in which 60 % of the heads of a model
are also in others, drifted, and 40 % are its own. Precision: share of the joined pairs of heads
that do have that in common. Recall: share of those that are joined. Then stores of 4 models in
which nothing is shared; in how many has a family p below 0.05? Everything twice: with heads that do
something of their own at every noise level, and with steady ones, which have few kinds to choose
from and often do what others do without its being planted.
"""

import argparse
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np

from attnsearch.clustering import Family, find_families, signatures, standardised
from attnsearch.clustering.planted import PRIVATE, PlantedModels, planted_models
from attnsearch_kernels.machine import describe_machine

RESULTS: Final = Path(__file__).resolve().parent / "results" / "planted-families.json"
HEADS: Final = ([12, 16, 16, 16], [12, 16] * 3, [12, 16, 16, 12] * 3)
SHARED: Final = 10
DRAWS: Final = 99


def families_of(models: PlantedModels, seed: int) -> tuple[Family, ...]:
    """What is found in such scans."""
    found = signatures(models.scans)
    owners = list(found["model"].to_numpy())
    return find_families(standardised(found), owners, draws=DRAWS, seed=seed)


def pairs_of(groups: Iterable[Iterable[int]]) -> set[tuple[int, int]]:
    """Every two of a group."""
    return {pair for group in groups for pair in combinations(sorted(map(int, group)), 2)}


def recovered(heads: list[int], stores: int, *, steady: bool) -> dict[str, float]:
    """Precision and recall of all stores together, and in the worst."""
    counts = []
    for seed in range(stores):
        models = planted_models(heads, SHARED, seed, steady=steady)
        joined = pairs_of(family.members for family in families_of(models, seed))
        common = range(PRIVATE + 1, SHARED)
        true = pairs_of(np.flatnonzero(models.common == number) for number in common)
        counts.append((len(joined & true), len(joined), len(true)))
    right, given, wanted = np.array(counts).T
    return {
        "models": len(heads),
        "precision": float(right.sum() / given.sum()),
        "recall": float(right.sum() / wanted.sum()),
        "worst_precision": float((right / given).min()),
        "worst_recall": float((right / wanted).min()),
    }


def false(stores: int, *, steady: bool) -> int:
    """Stores without anything shared in which a family has p below 0.05."""
    return sum(
        any(
            family.p_value < 0.05
            for family in families_of(planted_models(HEADS[0], 0, seed, steady=steady), seed)
        )
        for seed in range(stores)
    )


def main() -> None:
    """Plant, find, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stores", type=int, default=20, help="of each size; empty ones five fold")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where results are written")
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    for name, steady in (("own", False), ("steady", True)):
        found = []
        for heads in HEADS:
            found.append(recovered(heads, arguments.stores, steady=steady))
            print(f"{name:6}", *(f"{key} {value:.3f}" for key, value in found[-1].items()))
        empty = 5 * arguments.stores
        rows[name] = {"found": found, "empty": empty, "false": false(empty, steady=steady)}
        print(f"{name:6} empty stores with a family: {rows[name]['false']} of {empty}", flush=True)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "stores": arguments.stores,
        "shared": SHARED,
        **rows,
    }
    arguments.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
