"""One vector for every head, comparable between models of different depth, width and sampler.

Version 1 has three parts, groups of columns, each at the noise levels of `LEVELS`:

    relation    dipole (x, y) of the map of the relation words for each relation, less that of the
                mean over relations: mean over image tokens of attention times position, which
                runs from -1 to 1 across the canvas
    object      the same of the words of object 1
    mass        share of attention that each role gets

Steps of a scan become noise levels by linear interpolation, so neither their number nor the grid
of the map decides the length of a signature.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.aggregate import Aggregator
from attnsearch.axes import HEAD, LAYER, RELATIONS, ROLE, ROLES, HeadAddress
from attnsearch.errors import MetricError
from attnsearch.metrics.ranking import CONTROL, NOISE_LEVEL
from attnsearch.metrics.reader import Reader

VERSION: Final = 1
LEVELS: Final = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Of noise, between 0 and 1; outside those of a scan its first or last step counts."""
_SUBJECT: Final = ("colour1", "shape1")
_SMALLEST: Final = 1e-6
"""Deviation below which all heads of a model are the same in a column."""

Floats = npt.NDArray[np.float64]


def signatures(scans: Mapping[str, xr.Dataset], aggregate: Aggregator | None = None) -> xr.Dataset:
    """The signatures of all heads of some scans: `signature` (address, column).

    `address` is written MODEL:L2H8 and has the coordinates model, layer and head; `column` has
    part, name (of the relation or role), axis (x, y or empty) and noise_level. A relation or role
    that a scan has not is 0. Controls are left out.

    Raises:
        MetricError: there are no scans but controls, or one does not state its relations or noise
            levels.
    """
    aggregate = aggregate or Aggregator()
    found = [
        _of_scan(name, scan, aggregate)
        for name, scan in scans.items()
        if not scan.attrs.get(CONTROL)
    ]
    if not found:
        raise MetricError("there are no scans to take signatures of, other than controls")
    together = xr.concat(
        found, "address", data_vars="minimal", coords="minimal", join="exact", compat="equals"
    )
    return together.assign_attrs(version=VERSION)


def standardised(signatures: xr.Dataset) -> Floats:
    """Signatures ready to be compared by inner product, [head, column], rows of unit length.

    Of every model each column has mean 0 and deviation 1 over its heads: raw columns tell models
    apart, not behaviours. Every part weighs the same, whatever its number of columns.
    """
    values = signatures["signature"].to_numpy().astype(np.float64)
    models = signatures["model"].to_numpy()
    for model in np.unique(models):
        own = values[models == model]
        deviation = own.std(axis=0)
        deviation[deviation < _SMALLEST] = np.inf
        values[models == model] = (own - own.mean(axis=0)) / deviation
    parts = signatures["part"].to_numpy()
    for part in np.unique(parts):
        values[:, parts == part] /= np.sqrt((parts == part).sum())
    return unit_rows(values)


def unit_rows(values: Floats) -> Floats:
    """Rows of unit length; a row of zeros stays."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


def _of_scan(name: str, scan: xr.Dataset, aggregate: Aggregator) -> xr.Dataset:
    if NOISE_LEVEL not in scan.coords:
        raise MetricError(f"{name} does not say the noise levels of its steps")
    reader = Reader(model=name, scan=scan, aggregate=aggregate)
    relations = reader.relations().relations
    levels = scan[NOISE_LEVEL].to_numpy()
    roles = {str(role) for role in scan[ROLE].to_numpy()}
    subject = [role for role in _SUBJECT if role in roles]
    columns: list[tuple[str, str, str]] = []
    values: list[Floats] = []
    for part, moved in (("relation", ["relation"]), ("object", subject)):
        dipole = np.sum([reader.dipoles(role) for role in moved], axis=0) / np.prod(reader.grid)
        responses = _responses(dipole, relations)
        for relation in RELATIONS:
            for number, axis in enumerate("xy"):
                columns.append((part, relation, axis))
                values.append(responses[relation][..., number])
    empty = np.zeros_like(values[0])
    for role in ROLES:
        columns.append(("mass", role, ""))
        values.append(reader.mass([role]).mean(axis=0) if role in roles else empty)
    # [column, step, head] -> [head, column and level]
    found = np.stack([_at_levels(value, levels) for value in values])
    heads = [HeadAddress(int(k), int(h)) for k in scan[LAYER].values for h in scan[HEAD].values]
    parts, names, axes = (np.repeat(each, len(LEVELS)) for each in zip(*columns, strict=True))
    return xr.Dataset(
        {"signature": (("address", "column"), found.reshape(-1, found.shape[-1]).T)},
        coords={
            "address": [f"{name}:{head}" for head in heads],
            "model": ("address", np.full(len(heads), name, dtype=object)),
            "layer": ("address", [head.layer for head in heads]),
            "head": ("address", [head.head for head in heads]),
            "part": ("column", parts),
            "name": ("column", names),
            "axis": ("column", axes),
            NOISE_LEVEL: ("column", np.tile(LEVELS, len(columns))),
        },
    )


def _responses(dipole: Floats, relations: npt.NDArray[np.object_]) -> dict[str, Floats]:
    """Of each relation the mean dipole of its prompts less that of all relations, [step, head, xy].

    Every relation counts the same in the mean that is taken off.
    """
    stated = [relation for relation in RELATIONS if (relations == relation).any()]
    means = {relation: dipole[relations == relation].mean(axis=0) for relation in stated}
    centre = np.mean([*means.values()], axis=0)
    nothing = np.zeros_like(centre)
    return {
        relation: means[relation] - centre if relation in means else nothing
        for relation in RELATIONS
    }


def _at_levels(value: Floats, levels: Floats) -> Floats:
    """[step, head] at the common noise levels, [level, head]."""
    order = np.argsort(levels)
    return np.stack([np.interp(LEVELS, levels[order], each[order]) for each in value.T], axis=1)
