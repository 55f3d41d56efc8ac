"""From maps to families: stores of several models whose heads are known."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

import numpy as np
import xarray as xr

from attnsearch.axes import ROLES
from attnsearch.clustering import find_families, signatures, standardised
from attnsearch.metrics.planted import Kind, Plant, planted_scan

LEVELS = (0.9, 0.5, 0.1)
MOVING = (Kind.RELATIONAL, Kind.OBJECT, Kind.FIXED)

Course = list[Plant]
"""What a head does at each of the noise levels."""


def course(kind: Kind, strength: float, rng: np.random.Generator) -> Course:
    """A head that moves with the prompt in one way, and looks at words as the noise decides."""
    return [
        Plant(
            kind=kind,
            strength=strength,
            angle=float(rng.uniform(0, 2 * np.pi)),
            base=tuple(rng.normal(0, 1.5, len(ROLES))),
        )
        for _ in LEVELS
    ]


def drifted(course: Course, rng: np.random.Generator) -> Course:
    """The same in another model: stronger or weaker, its attention shared out a little else."""
    factor = float(rng.uniform(0.7, 1.4))
    return [
        replace(
            plant,
            strength=plant.strength * factor,
            base=tuple(np.array(plant.base) + rng.normal(0, 0.25, len(ROLES))),
        )
        for plant in course
    ]


def planted_store(
    heads: list[int], shared: int, seed: int
) -> tuple[dict[str, xr.Dataset], np.ndarray]:
    """Scans, and of every head what it shares with other models (-1: nothing), in their order."""
    rng = np.random.default_rng(seed)

    def any_course() -> Course:
        return course(MOVING[rng.integers(3)], float(rng.choice([-2, 2])), rng)

    common = [any_course() for _ in range(shared)]
    scans, truth = {}, []
    for model, count in enumerate(heads):
        own = rng.permutation(shared)[: round(0.6 * count)].tolist()
        kinds = rng.permutation(own + [-1] * (count - len(own)))
        made = [drifted(common[k], rng) if k >= 0 else any_course() for k in kinds]
        steps = [
            planted_scan([each[step] for each in made], int(rng.integers(2**31)))
            for step in range(len(LEVELS))
        ]
        scans[f"model{model}"] = xr.concat(
            steps, "step", data_vars="minimal", coords="minimal", join="override", compat="override"
        ).assign_coords(noise_level=("step", list(LEVELS)))
        truth += kinds.tolist()
    return scans, np.array(truth)


def pairs_of(groups: Iterable[Iterable[int]]) -> set[tuple[int, int]]:
    return {pair for group in groups for pair in combinations(sorted(map(int, group)), 2)}


def test_families_of_stores_are_recovered() -> None:
    right, given, wanted = 0, 0, 0
    for heads in ([12, 16, 16, 16], [12, 16] * 3, [12, 16, 16, 12] * 3):
        scans, truth = planted_store(heads, shared=10, seed=len(heads))
        found = signatures(scans)
        families = find_families(standardised(found), list(found["model"].values), draws=99)
        assert families[0].p_value < 0.05
        joined = pairs_of(family.members for family in families)
        true = pairs_of(np.flatnonzero(truth == kind) for kind in range(10))
        right += len(joined & true)
        given += len(joined)
        wanted += len(true)
    # Private heads that move the same way by luck are alike, and may be joined.
    assert right >= 0.92 * given
    assert right >= 0.92 * wanted


def test_where_nothing_is_shared_no_family_is_wide() -> None:
    for seed in range(4):
        scans, _ = planted_store([12, 16, 16, 16], shared=0, seed=seed)
        found = signatures(scans)
        families = find_families(standardised(found), list(found["model"].values), draws=99)
        assert all(family.p_value > 0.05 for family in families)
