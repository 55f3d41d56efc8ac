"""The mean maps of one head: what it looks at, by relation and step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.aggregation import Attention, basis_of
from attnsearch.api.scans import Scans, opened_aggregator, opened_scans
from attnsearch.axes import BASIS, HEAD, LAYER, RELATIONS, STEP, Branch, HeadAddress
from attnsearch.errors import ConfigError, MetricError
from attnsearch.metrics.meaning import token_positions
from attnsearch.metrics.ranking import NOISE_LEVEL
from attnsearch.scheduling import THREADS
from attnsearch.tables import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RELATION: Final = "relation"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanMap:
    """The mean over prompts and seeds of the maps of one head, of one relation and step."""

    relation: str
    """What the prompts ask for; empty where prompts have no relation."""
    step: int
    noise_level: float | None
    samples: int
    """How many images it is a mean over."""
    attention: float
    """Share of attention that the words get, mean over image tokens, in [0, 1]."""
    x: float
    """Centre of that attention, from -1 (left) to 1 (right)."""
    y: float
    """From -1 (top) to 1 (bottom)."""


class HeadMaps(Table[MeanMap]):
    """A row for every relation and step; `maps` has the maps themselves."""

    maps: xr.DataArray
    """[relation, step, y, x] attention to the words, reconstructed from sketches."""
    head: str
    """As MODEL:L2H8."""

    @property
    def columns(self) -> Sequence[Column[MeanMap]]:
        """See `Table`."""
        return [
            Column("relation", lambda row: row.relation or "-", words=True),
            Column("step", lambda row: str(row.step)),
            Column("noise", lambda row: _number(row.noise_level)),
            Column("images", lambda row: str(row.samples)),
            Column("attention", lambda row: f"{row.attention:.3f}"),
            Column("x", lambda row: f"{row.x:+.2f}"),
            Column("y", lambda row: f"{row.y:+.2f}"),
        ]

    def to_xarray(self) -> xr.Dataset:
        """The maps, as variable `attention` along relation, step, y and x."""
        return self.maps.to_dataset(name="attention")

    def figure(self) -> "Figure":
        """The maps, a row of them for every relation, a column for every step."""
        from attnsearch.report import head_maps

        return head_maps.draw(self.maps, self.title)


def maps(
    store: Scans | None,
    head: str,
    *,
    roles: Sequence[str] = (RELATION,),
    scan: str | None = None,
    branch: Branch = Branch.COND,
    dask: str = THREADS,
) -> HeadMaps:
    """Mean attention of one head to the words of some roles, by relation and step.

    `store` is as of `ask`; None is the usual store. `head` is `MODEL:L2H8`, or `L2H8` where the
    store holds one scan or `scan` names it.

    Raises:
        MetricError: there is no such head or role.
        StoreError: there is no such store or scan, or something of it is damaged.
    """
    model, address = _parsed(head)
    scans = opened_scans(store, scan or model)
    if len(scans) > 1:
        raise MetricError(f"say of which model: MODEL:{address}; there is {', '.join(scans)}")
    ((name, opened),) = scans.items()
    layers, heads = opened[LAYER].to_numpy(), opened[HEAD].to_numpy()
    if address.layer not in layers or address.head not in heads:
        last = HeadAddress(int(layers.max()), int(heads.max()))
        raise MetricError(f"{name} has no head {address}; the last one is {last}")
    related = RELATION in opened.coords and bool((opened[RELATION] != "").any())
    keep = (*([RELATION] if related else []), STEP, LAYER, HEAD, BASIS)
    with opened_aggregator(dask) as aggregate:
        found = aggregate(opened, Attention(roles=tuple(roles), branch=branch), keep)
    found = found.sel({LAYER: address.layer, HEAD: address.head})
    if not related:
        found = found.expand_dims({RELATION: [""]})
    order = [r for r in ("", *RELATIONS) if r in found[RELATION].to_numpy()]
    found = found.sel({RELATION: order}).transpose(RELATION, STEP, BASIS)
    title = f"attention of {name}:{address} to the words of {'+'.join(roles)}"
    table = HeadMaps(_rows(found, opened), title, scans.notes)
    table.maps, table.head = _maps(found, opened), f"{name}:{address}"
    return table


def _parsed(head: str) -> tuple[str | None, HeadAddress]:
    model, _, address = head.rpartition(":")
    try:
        return model or None, HeadAddress.parse(address)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _maps(found: xr.Dataset, scan: xr.Dataset) -> xr.DataArray:
    height, width = scan.attrs["grid"]
    values = (found["mean"].to_numpy() @ basis_of(scan)).reshape(
        *found["mean"].shape[:2], height, width
    )
    # A sketch of few frequencies can be a little below zero where a map is zero.
    return xr.DataArray(
        np.maximum(values, 0),
        dims=(RELATION, STEP, "y", "x"),
        coords={RELATION: found[RELATION], STEP: found[STEP]},
    )


def _rows(found: xr.Dataset, scan: xr.Dataset) -> list[MeanMap]:
    height, width = scan.attrs["grid"]
    positions = token_positions((height, width))
    basis: npt.NDArray[np.float64] = basis_of(scan)
    levels = scan[NOISE_LEVEL].to_numpy() if NOISE_LEVEL in scan.coords else None
    rows = []
    for relation, by_step in zip(found[RELATION].to_numpy(), found["mean"].to_numpy(), strict=True):
        count = found["count"].sel({RELATION: relation}).to_numpy()
        for place, coefficients in enumerate(by_step):
            attention = coefficients @ basis
            total = float(attention.sum())
            x, y = (attention @ positions) / total if total > 0 else (0.0, 0.0)
            rows.append(
                MeanMap(
                    relation=str(relation),
                    step=int(found[STEP].to_numpy()[place]),
                    noise_level=None if levels is None else float(levels[place]),
                    samples=int(count[place].max()),
                    attention=float(attention.mean()),
                    x=float(x),
                    y=float(y),
                )
            )
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
