"""What heads do, in words: what moves with the prompt and who is attended to, over noise.

A profile has a row for each trait, at the noise levels of signatures:

    relational    attention of the relation words moved the way the relation points: mean over
                  relations of share of attention times displacement in half canvases
    object        the same of the words of object 1
    one per role  share of attention it gets, less that of the model's average head
"""

import re
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.axes import RELATION_DIRECTIONS, RELATIONS, ROLES
from attnsearch.clustering.signatures import LEVELS, Floats, unit_rows
from attnsearch.errors import MetricError
from attnsearch.intake import quote
from attnsearch.metrics.ranking import NOISE_LEVEL

_PARTS: Final = {"relational": "relation", "object": "object"}
TRAITS: Final = (*_PARTS, *ROLES)
_NOTICED: Final = np.array([0.02] * len(_PARTS) + [0.1] * len(ROLES))
"""Size from which a trait is named; in units of these, traits are compared."""
_LASTING: Final = 0.5
"""Share of its largest size above which a trait is there at a noise level."""
_TIMES: Final = {"early": (0.9, 0.7), "middle": (0.5, 0.5), "late": (0.3, 0.1)}
_REVERSED: Final = "reversed"
_NUMBER: Final = r"(0?\.\d+|[01])"
_RANGE: Final = re.compile(rf"(?:from noise {_NUMBER} to|at noise) {_NUMBER}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """A trait between two noise levels; written "relational, reversed, from noise 0.9 to 0.5"."""

    name: str
    reversed: bool = False
    """Against the relation; of a role, less attention than other heads give it."""
    begin: float = LEVELS[0]
    end: float = LEVELS[-1]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what is written with commas; "early", "middle" and "late" say the noise too.

        Raises:
            MetricError: a word is not known, or no trait is named.
        """
        name, against, (begin, end) = "", False, (LEVELS[0], LEVELS[-1])
        for word in (each.strip().lower() for each in text.split(",")):
            between = _RANGE.fullmatch(word)
            if word in TRAITS and not name:
                name = word
            elif word == _REVERSED:
                against = True
            elif word in _TIMES:
                begin, end = _TIMES[word]
            elif between:
                ends = [float(each) for each in between.groups() if each]
                begin, end = max(ends), min(ends)
            else:
                raise MetricError(
                    f"{quote(word)} is not understood; write a trait ({', '.join(TRAITS)}), then "
                    f"{_REVERSED}, early, middle, late or from noise 0.9 to 0.5, with commas"
                )
        if not name:
            raise MetricError(f"{quote(text)} names no trait: {', '.join(TRAITS)}")
        trait = cls(name=name, reversed=against, begin=begin, end=end)
        if not trait.levels.any():
            raise MetricError(f"{quote(text)} holds none of the noise levels {_listed(LEVELS)}")
        return trait

    @property
    def levels(self) -> npt.NDArray[np.bool_]:
        """[noise_level] those it is there at."""
        levels = np.array(LEVELS)
        return (levels <= self.begin) & (levels >= self.end)

    @property
    def vector(self) -> Floats:
        """What `sizes` makes of a head that has this trait and no other, [trait and level]."""
        asked = np.zeros((len(TRAITS), len(LEVELS)))
        asked[TRAITS.index(self.name)] = self.levels * (-1.0 if self.reversed else 1.0)
        return unit_rows(asked.reshape(1, -1))[0]

    def __str__(self) -> str:
        words = [self.name] + [_REVERSED] * self.reversed
        if not self.levels.all():
            same = self.begin == self.end
            words.append(
                f"at noise {self.begin}" if same else f"from noise {self.begin} to {self.end}"
            )
        return ", ".join(words)


def profiles(signatures: xr.Dataset) -> xr.DataArray:
    """Of all heads [address, trait, noise_level], from their signatures."""
    values = signatures["signature"].to_numpy()
    part, name, axis = (signatures[each].to_numpy() for each in ("part", "name", "axis"))
    level = signatures[NOISE_LEVEL].to_numpy()

    def at_levels(chosen: npt.NDArray[np.bool_]) -> Floats:
        return np.stack([values[:, chosen & (level == each)].sum(axis=1) for each in LEVELS], 1)

    found = []
    for moving in _PARTS.values():
        moved = np.zeros((len(values), len(LEVELS)))
        for relation in RELATIONS:
            for along, direction in zip("xy", RELATION_DIRECTIONS[relation], strict=True):
                columns = (part == moving) & (name == relation) & (axis == along)
                moved += direction * at_levels(columns)
        found.append(moved / max(1, _stated(signatures, moving)))
    models = signatures["model"].to_numpy()
    for role in ROLES:
        mass = at_levels((part == "mass") & (name == role))
        for model in np.unique(models):
            mass[models == model] -= mass[models == model].mean(axis=0)
        found.append(mass)
    return xr.DataArray(
        np.stack(found, axis=1),
        dims=("address", "trait", NOISE_LEVEL),
        coords={
            "address": signatures["address"],
            "trait": list(TRAITS),
            NOISE_LEVEL: list(LEVELS),
        },
        name="profile",
    )


def best_name(profile: Floats) -> Trait | None:
    """The trait that stands out in a profile [trait, noise_level]; None where none is noticed.

    What moves with the relation comes before what is merely attended to.
    """
    size = profile / _NOTICED[:, None]
    moving = size[: len(_PARTS)]
    among = moving if abs(moving).max() >= 1 else np.maximum(size, 0)
    trait = int(abs(among).max(axis=1).argmax())
    own = among[trait]
    if abs(own).max() < 1:
        return None
    largest = own[abs(own).argmax()]
    there = np.array(LEVELS)[own * np.sign(largest) >= _LASTING * abs(largest)]
    return Trait(
        name=TRAITS[trait],
        reversed=bool(largest < 0),
        begin=float(there.max()),
        end=float(there.min()),
    )


def sizes(profiles: xr.DataArray) -> Floats:
    """Profiles to be compared by inner product, [address, trait and level], of unit length."""
    size = profiles.to_numpy() / _NOTICED[:, None]
    return unit_rows(size.reshape(len(size), -1))


def _listed(levels: tuple[float, ...]) -> str:
    return ", ".join(map(str, levels))


def _stated(signatures: xr.Dataset, part: str) -> int:
    """How many relations any scan states."""
    own = signatures.isel(column=(signatures["part"] == part).to_numpy())
    moved = own["signature"].groupby(own["name"]).map(lambda each: abs(each).max())
    return int((moved > 0).sum())
