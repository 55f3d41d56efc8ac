"""Heads that are most like one of them, or like a description."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from attnsearch.api.heads import addresses_of, compared_heads
from attnsearch.api.scans import OpenedScans, Scans
from attnsearch.clustering import HeadIndex, standardised
from attnsearch.clustering.profiles import Trait, profiles, sizes
from attnsearch.errors import ConfigError, MetricError
from attnsearch.scheduling import THREADS
from attnsearch.tables import Column, Table


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarHead:
    """A head, and how like it is."""

    head: str
    """As MODEL:L2H8."""
    cosine: float
    """Of signatures, or of profiles where a description was given."""


class SimilarHeads(Table[SimilarHead]):
    """Heads, the most similar first."""

    _scans: OpenedScans

    @property
    def columns(self) -> Sequence[Column[SimilarHead]]:
        """See `Table`."""
        return [
            Column("head", lambda row: row.head, words=True),
            Column("cosine", lambda row: f"{row.cosine:+.3f}"),
        ]

    def record(self, row: SimilarHead) -> dict[str, Any]:
        """The fields of `SimilarHead`, and the blocks of its scan: planned, and those read."""
        return asdict(row) | self._scans.blocks(row.head.rpartition(":")[0])


def similar(
    store: Scans | None = None,
    *,
    to: str | None = None,
    like: str | None = None,
    top: int = 20,
    elsewhere: bool = False,
    within: Sequence[str] = (),
    dask: str = THREADS,
) -> SimilarHeads:
    """The `top` heads most like the head `to` (`MODEL:L2H8`), or like a description.

    `store` is as of `ask`. A description is such as `relational, late` or
    `shape1, from noise 0.9 to 0.5`. With `elsewhere`, only heads of other models than that of `to`
    are given; `within` has conditions on models such as `encoder=rtep`.

    Raises:
        ConfigError: both or neither of `to` and `like` are given, or FAISS is not installed.
        MetricError: there is no such head, or the description is none.
        StoreError: there is no such store, or something of it is damaged.
    """
    if (to is None) == (like is None):
        raise ConfigError("say either `to`, a head such as MODEL:L2H8, or `like`, what it does")
    trait = None if like is None else Trait.parse(like)
    heads, scans, saved = compared_heads(store, within, dask)
    names, models = addresses_of(heads), [str(model) for model in heads["model"].to_numpy()]
    if trait is not None:
        vectors, query, hidden = sizes(profiles(heads)), trait.vector, set[int]()
    else:
        if to not in names:
            raise MetricError(f"no head {to!r}; heads are named as {names[0]} to {names[-1]}")
        asked = names.index(to)
        vectors = standardised(heads)
        query = vectors[asked]
        # Heads that are not asked for come back too: the one itself, or all of its model.
        own = {number for number, model in enumerate(models) if model == models[asked]}
        hidden = own if elsewhere else {asked}
    found, cosines = HeadIndex(vectors, saved).nearest(query[None], top + len(hidden))
    rows = [
        SimilarHead(head=names[other], cosine=round(float(cosine), 6))
        for other, cosine in zip(found[0], cosines[0], strict=True)
        if other not in hidden
    ][:top]
    table = SimilarHeads(rows, f"heads like {trait or to}", scans.notes)
    table._scans = scans
    return table
