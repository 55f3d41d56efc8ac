"""Models whose heads are known, to see whether families find those that do the same.

Some heads are of several models: in each they are stronger or weaker, and share out their attention
a little else. The rest are private.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.axes import RELATIONS, ROLES
from attnsearch.metrics.planted import Kind, Plant, planted_scan
from attnsearch.metrics.ranking import NOISE_LEVEL

PRIVATE: Final = -1
"""What a head has in common with others that has nothing in common."""
_LEVELS: Final = (0.9, 0.5, 0.1)
_STRENGTH: Final = 2.0
_SHARED: Final = 0.6
"""Of the heads of a model."""

_Course = list[Plant]
"""What a head does at each of the noise levels."""


class PlantedModels(NamedTuple):
    """Scans by model, and what each head has in common with heads of others."""

    scans: dict[str, xr.Dataset]
    common: npt.NDArray[np.int64]
    """[head], all heads of the first model first; `PRIVATE` or the number of what is shared."""


def planted_models(
    heads: Sequence[int], shared: int, seed: int, *, steady: bool = False
) -> PlantedModels:
    """Models of so many heads, of which each has up to 60 % of the `shared` ones.

    A head does one thing at each noise level, drawn from all kinds and both signs; where it is
    `steady`, the same at all. There are few kinds, so that many steady private heads do in truth
    what others do.
    """
    rng = np.random.default_rng(seed)
    courses = [_course(rng, steady=steady) for _ in range(shared)]
    scans, common = {}, []
    for model, count in enumerate(heads):
        own = rng.permutation(shared)[: round(_SHARED * count)].tolist()
        numbers = rng.permutation(own + [PRIVATE] * (count - len(own)))
        made = [
            _course(rng, steady=steady) if number == PRIVATE else _drifted(courses[number], rng)
            for number in numbers
        ]
        scans[f"model{model}"] = xr.concat(
            [planted_scan(plants, int(rng.integers(2**31))) for plants in zip(*made, strict=True)],
            "step",
            data_vars="minimal",
            coords="minimal",
            join="override",
            compat="override",
        ).assign_coords({NOISE_LEVEL: ("step", list(_LEVELS))})
        common.extend(numbers.tolist())
    return PlantedModels(scans, np.array(common))


def _course(rng: np.random.Generator, *, steady: bool) -> _Course:
    course = [_plant(rng) for _ in _LEVELS]
    if not steady:
        return course
    # How attention is shared out among roles is another at each level even so.
    return [replace(course[0], base=plant.base) for plant in course]


def _plant(rng: np.random.Generator) -> Plant:
    return Plant(
        kind=tuple(Kind)[rng.integers(len(Kind))],
        strength=float(rng.choice([-_STRENGTH, _STRENGTH])),
        angle=float(rng.uniform(0, 2 * np.pi)),
        relation=RELATIONS[rng.integers(len(RELATIONS))],
        base=tuple(rng.normal(0, 1.5, len(ROLES))),
    )


def _drifted(course: _Course, rng: np.random.Generator) -> _Course:
    """The same in another model."""
    factor = float(rng.uniform(0.7, 1.4))
    return [
        replace(
            plant,
            strength=plant.strength * factor,
            base=tuple(np.array(plant.base) + rng.normal(0, 0.25, len(ROLES))),
        )
        for plant in course
    ]
