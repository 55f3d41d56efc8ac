"""What metrics read of a scan: of every prompt, step and head the mean over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.aggregation import (
    FUNCTIONAL,
    MEASURE,
    SHARE,
    TOTAL,
    Aggregator,
    Attention,
    Functional,
    Quantity,
    RegionScore,
    Stored,
    basis_of,
)
from attnsearch.axes import (
    BASIS,
    HEAD,
    LAYER,
    PROMPT,
    REGION,
    RELATION_DIRECTIONS,
    ROLE,
    STEP,
)
from attnsearch.errors import MetricError
from attnsearch.metrics.meaning import token_positions

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """The prompts of a scan and what they say."""

    texts: npt.NDArray[np.object_]
    columns: dict[str, npt.NDArray[np.object_]]
    """Coordinates that all seeds of a prompt share, [prompt], as text."""

    def codes(self, name: str) -> npt.NDArray[np.intp]:
        """[prompt] number of the value of a coordinate; zeros where there is none."""
        if name not in self.columns:
            return np.zeros(len(self.texts), dtype=np.intp)
        return np.unique(self.columns[name], return_inverse=True)[1].reshape(-1)

    @property
    def relations(self) -> npt.NDArray[np.object_]:
        """[prompt] the relation asked for, empty where none is."""
        return self.columns["relation"]

    def presence(self) -> Floats:
        """How often each direction word is in the phrase of a prompt, [prompt, word]: 0 or 1."""
        phrases = [str(phrase).split() for phrase in self.columns["relation_words"]]
        words = sorted({word for phrase in phrases for word in phrase})
        return np.array([[float(word in phrase) for word in words] for phrase in phrases])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads one scan; what was read once is not read again."""

    model: str
    """Name of the scan, for complaints."""
    scan: xr.Dataset
    aggregate: Aggregator
    _found: dict[str, xr.DataArray] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the map, in image tokens."""
        height, width = self.scan.attrs["grid"]
        return int(height), int(width)

    def prompts(self) -> Prompts:
        """The prompts, in order of first appearance, as in all that is read."""
        texts = self.scan[PROMPT].to_numpy().astype(object)
        _, first, number = np.unique(texts, return_index=True, return_inverse=True)
        first, place = np.sort(first), np.argsort(np.argsort(first))
        number = place[number.reshape(-1)]
        columns = {}
        for name, column in self.scan.coords.items():
            if column.dims == self.scan[PROMPT].dims:
                entries = column.to_numpy().astype(object)
                if (entries == entries[first][number]).all():
                    columns[str(name)] = entries[first].astype(str).astype(object)
        return Prompts(texts=texts[first], columns=columns)

    def relations(self) -> Prompts:
        """The prompts of a scan whose relation words can be told from others.

        Raises:
            MetricError: they state no relations, unknown ones, or only one.
        """
        stated = self.scan.coords.get("relation")
        if stated is None or "relation" not in self.scan[ROLE].to_numpy():
            raise MetricError(
                "the relational metric needs prompts that mark their relation words, "
                "for example {relation:above}"
            )
        relations = {str(relation) for relation in stated.to_numpy()} - {""}
        if unknown := sorted(relations - RELATION_DIRECTIONS.keys()):
            raise MetricError(
                f"the relational metric knows no direction for the relation {unknown[0]!r}; "
                f"known: {', '.join(RELATION_DIRECTIONS)}"
            )
        if len(relations) < 2:
            raise MetricError("the relational metric needs prompts with at least two relations")
        prompts = self.prompts()
        for name in ("relation", "relation_words"):
            if name not in prompts.columns:
                raise MetricError(f"the samples of some prompt of {self.model} differ in {name}")
        return prompts

    def dipoles(self, role: str) -> Floats:
        """sum_i a_i r_i with a the attention to a role, [prompt, step, head, xy]."""
        positions = basis_of(self.scan) @ token_positions(self.grid)
        return self._functional(f"dipole {role}", positions, (role,))

    def mass(self, roles: Sequence[str]) -> Floats:
        """Share of attention that roles get, mean over image tokens, [prompt, step, head]."""
        tokens = self.grid[0] * self.grid[1]
        constant = basis_of(self.scan) @ np.full((tokens, 1), 1 / tokens)
        self._check(ROLE, roles)
        return self._functional(f"mass {roles}", constant, tuple(roles))[..., 0]

    def maps(self, role: str) -> Floats:
        """Coefficients of the attention to a role, without the constant, [..., head, basis]."""
        self._check(ROLE, (role,))
        values = self._mean(f"maps {role}", Attention(roles=(role,)), BASIS)
        frequencies = self.scan["ky"].to_numpy() + self.scan["kx"].to_numpy()
        return values[..., frequencies > 0]

    def ramps(self) -> Floats:
        """Coefficients [basis, xy] of the two position ramps, of unit length, without constant."""
        frequencies = self.scan["ky"].to_numpy() + self.scan["kx"].to_numpy()
        positions = token_positions(self.grid)
        return (basis_of(self.scan) @ (positions / np.linalg.norm(positions, axis=0)))[
            frequencies > 0
        ]

    def region(self, region: str, roles: Sequence[str], measure: str = SHARE) -> Floats:
        """Attention of a region to roles, [prompt, step, head]; NaN where it was never found.

        Raises:
            MetricError: the scan has no such region or role, or no image of it has the region.
        """
        asked = f"{region} -> {'+'.join(roles)}"
        if REGION not in self.scan.coords:
            raise MetricError(
                f"nothing looked for objects in the images of {self.model}, so '{asked}' has no "
                "region; for pipelines a segmenter does, in Python"
            )
        self._check(REGION, (region,))
        self._check(ROLE, roles)
        score = RegionScore(region=region, roles=tuple(roles))
        values = self._mean(asked, score, MEASURE)[..., (TOTAL, SHARE).index(measure)]
        if np.isnan(values).all():
            raise MetricError(
                f"{region} was found in no image of {self.model}, so '{asked}' has no region "
                "to look at"
            )
        return values

    def having(self, roles: Sequence[str]) -> Flags:
        """[prompt] whether a prompt has words of all these roles.

        The words of a role are a coordinate of its name, empty where a prompt has none. Of a role
        without such a coordinate nothing is known, and all prompts count as having it.
        """
        columns = self.prompts().columns
        names = ["relation_words" if role == "relation" else role for role in roles]
        found = np.ones(len(columns[PROMPT]), dtype=bool)
        for name in names:
            if name in columns:
                found &= columns[name] != ""
        return found

    def stored(self, name: str) -> Floats:
        """A number that the scan has of every map, [prompt, step, head]."""
        return self._mean(name, Stored(name=name))

    def _functional(self, key: str, of: Floats, roles: tuple[str, ...]) -> Floats:
        functional = Functional(coefficients=of.astype(np.float32), roles=roles)
        return self._mean(key, functional, FUNCTIONAL)

    def _mean(self, key: str, quantity: Quantity, *more: str) -> Floats:
        if key not in self._found:
            keep = (PROMPT, STEP, LAYER, HEAD, *more)
            self._found[key] = self.aggregate(self.scan, quantity, keep)["mean"]
        values = self._found[key].to_numpy()
        prompts, steps, layers, heads, *rest = values.shape
        return values.reshape(prompts, steps, layers * heads, *rest)

    def _check(self, kind: str, names: Sequence[str]) -> None:
        known = [str(name) for name in self.scan[kind].to_numpy()]
        for name in names:
            if name not in known:
                raise MetricError(f"unknown {kind} {name!r}; {self.model} has {', '.join(known)}")
