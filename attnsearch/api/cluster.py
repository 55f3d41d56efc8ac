"""Families of heads of different models, and behaviours of all heads."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from attnsearch.api.heads import addresses_of, compared_heads, models_of
from attnsearch.api.scans import OpenedScans, Scans
from attnsearch.clustering import (
    Family,
    find_behaviours,
    find_families,
    standardised,
)
from attnsearch.clustering.profiles import best_name, profiles
from attnsearch.clustering.selection import concentration, facts
from attnsearch.scheduling import THREADS
from attnsearch.tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNNAMED: Final = "nothing that has a name"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShare:
    """Models of one text encoder that have a family."""

    coverage: int
    models: int
    """How many models have the encoder."""
    p_value: float
    """Chance of as many, if family and encoder had nothing to do with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFamily:
    """Heads of different models that do the same."""

    family: int
    """1 is the widest."""
    name: str
    """What they do, by their mean profile."""
    coverage: int
    """In how many models it has a head."""
    models: int
    """How many were compared."""
    encoders: dict[str, EncoderShare]
    cohesion: float
    """Mean cosine of its heads with each other."""
    p_value: float
    """Chance that the widest family of unrelated heads covers as many models."""
    exemplar: str
    """The head most like the others, as MODEL:L2H8."""
    heads: dict[str, list[str]]
    """Heads by model."""
    profile: dict[str, float]
    """Mean strength of each trait."""


class Families(Table[FoundFamily]):
    """Families of heads, widest first."""

    _drawn: "tuple[np.ndarray[Any, Any], xr.Dataset, Sequence[Family], list[str]]"
    _scans: OpenedScans

    @property
    def columns(self) -> Sequence[Column[FoundFamily]]:
        """See `Table`."""
        return [
            Column("family", lambda row: str(row.family)),
            Column("what it does", lambda row: row.name, words=True),
            Column("models", lambda row: f"{row.coverage} of {row.models}"),
            Column("cohesion", lambda row: f"{row.cohesion:.2f}"),
            Column("p", lambda row: f"{row.p_value:.3g}"),
            Column("exemplar", lambda row: row.exemplar, words=True),
        ]

    def record(self, row: FoundFamily) -> dict[str, Any]:
        """The fields of `FoundFamily`, and the blocks of all scans: planned, and those read."""
        return asdict(row) | self._scans.blocks()

    def figure(self) -> "Figure":
        """All heads on the plane of their largest variance: by family, by encoder, by depth."""
        from attnsearch.clustering.landscape import landscape
        from attnsearch.report import landscape as sheet

        vectors, heads, families, encoders = self._drawn
        named = [
            (f"{number}: {self._names[number]}", family.members)
            for number, family in enumerate(families, start=1)
        ]
        return sheet.draw(landscape(vectors, heads), named, encoders)

    _names: Mapping[int, str]


def cluster(
    store: Scans | None = None, *, within: Sequence[str] = (), dask: str = THREADS
) -> Families:
    """Families of heads: heads of different models that do the same.

    `store` is as of `ask`. `within` has conditions on models such as `encoder=rtep` or
    `name=*-seed0`. Signatures of heads are kept in a folder beside the store.

    Raises:
        ConfigError: the heads are of fewer than two models.
        MetricError: a condition is none, or a scan lacks what signatures need.
        StoreError: there is no such store, or something of it is damaged.
    """
    heads, scans, _ = compared_heads(store, within, dask)
    vectors = standardised(heads)
    families = find_families(vectors, list(heads["model"].values))
    encoders = {name: facts(name, scan).get("encoder", "?") for name, scan in scans.items()}
    rows = _rows(families, heads, encoders)
    notes = (
        [f"{len(rows)} families"]
        if rows
        else ["no families: no heads of different models are more alike than unrelated heads"]
    )
    found = Families(rows, f"families of {scans.title}", [*notes, *scans.notes])
    owners = [str(model) for model in heads["model"].to_numpy()]
    found._drawn = (vectors, heads, families, [encoders[model] for model in owners])
    found._names = {row.family: row.name for row in rows}
    found._scans = _compared(scans, heads)
    return found


def _compared(scans: OpenedScans, heads: xr.Dataset) -> OpenedScans:
    return OpenedScans({model: scans[model] for model in models_of(heads)})


def _rows(
    families: Sequence[Family], heads: xr.Dataset, encoders: Mapping[str, str]
) -> list[FoundFamily]:
    profile = profiles(heads)
    owners = [str(model) for model in heads["model"].to_numpy()]
    models = sorted(set(owners))
    kinds = {kind: [m for m in models if encoders[m] == kind] for kind in encoders.values()}
    kinds = {kind: kinds[kind] for kind in sorted(kinds) if kinds[kind]}
    rows = []
    for number, family in enumerate(families, start=1):
        members: dict[str, list[str]] = {}
        for member, address in zip(
            family.members, addresses_of(heads, family.members), strict=True
        ):
            members.setdefault(owners[member], []).append(address.rpartition(":")[2])
        mean = profile.values[list(family.members)].mean(axis=0)
        shares = {}
        for kind, own in kinds.items():
            covered = sum(model in members for model in own)
            chance = concentration(family.coverage, covered, len(own), len(models))
            shares[kind] = EncoderShare(coverage=covered, models=len(own), p_value=chance)
        rows.append(
            FoundFamily(
                family=number,
                name=str(best_name(mean) or _UNNAMED),
                coverage=family.coverage,
                models=len(models),
                encoders=shares,
                cohesion=family.cohesion,
                p_value=family.p_value,
                exemplar=addresses_of(heads, [family.exemplar])[0],
                heads=members,
                profile=dict(zip(profile["trait"].values, mean.round(4).tolist(), strict=True)),
            )
        )
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Heads that one cluster of k-means holds."""

    behaviour: int
    """1 is that of most heads."""
    name: str
    """What they do, by their mean profile."""
    heads: int
    models: int
    """In how many models it has a head."""
    agreement: float
    """Mean share of k-means seeds that put its heads there."""
    exemplar: str
    """The head nearest to their mean, as MODEL:L2H8."""
    members: list[str]


class BehaviourTable(Table[Behaviour]):
    """All heads sorted into behaviours, the commonest first."""

    stability: Mapping[int, float]
    """How alike two samples of the heads are sorted, by the number of behaviours tried."""
    _scans: OpenedScans

    @property
    def columns(self) -> Sequence[Column[Behaviour]]:
        """See `Table`."""
        return [
            Column("behaviour", lambda row: str(row.behaviour)),
            Column("name", lambda row: row.name, words=True),
            Column("heads", lambda row: str(row.heads)),
            Column("models", lambda row: str(row.models)),
            Column("agreement", lambda row: f"{row.agreement:.2f}"),
            Column("exemplar", lambda row: row.exemplar, words=True),
        ]

    def record(self, row: Behaviour) -> dict[str, Any]:
        """The fields of `Behaviour`, and the blocks of all scans: planned, and those read."""
        return asdict(row) | self._scans.blocks()


def behaviours(
    store: Scans | None = None,
    number: int | None = None,
    *,
    within: Sequence[str] = (),
    dask: str = THREADS,
) -> BehaviourTable:
    """All heads sorted into a number of behaviours by k-means, whether or not models share them.

    Without a `number` it is the largest that is as stable as the most stable one; see
    `find_behaviours`. The rest is as of `cluster`.

    Raises:
        AttnsearchError: as of `cluster`; FAISS is not installed, or there are too few heads.
    """
    heads, scans, _ = compared_heads(store, within, dask)
    vectors = standardised(heads)
    found = find_behaviours(vectors, number)
    profile, models = profiles(heads).values, heads["model"].values
    rows = []
    for label in range(int(found.label.max()) + 1):
        members = np.flatnonzero(found.label == label)
        if not len(members):
            continue
        nearest = (vectors[members] @ vectors[members].mean(axis=0)).argmax()
        addresses = addresses_of(heads, members.tolist())
        rows.append(
            Behaviour(
                behaviour=label + 1,
                name=str(best_name(profile[members].mean(axis=0)) or _UNNAMED),
                heads=len(members),
                models=len(np.unique(models[members])),
                agreement=round(float(found.agreement[members].mean()), 4),
                exemplar=addresses[int(nearest)],
                members=addresses,
            )
        )
    tried = ", ".join(f"{k}: {value:.2f}" for k, value in found.stability.items())
    note = f"agreement: share of k-means seeds; stability by number of behaviours: {tried}"
    table = BehaviourTable(rows, f"behaviours of {scans.title}", [note, *scans.notes])
    table.stability, table._scans = found.stability, _compared(scans, heads)
    return table
