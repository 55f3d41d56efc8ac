"""One vector for every head, comparable between models of different depth, width and sampler.

Version 1 has three blocks of columns, each at the noise levels of `LEVELS`:

    relation    where the map of the relation words moves for each relation, in half canvases
                (x, y), relative to the mean over relations
    object      the same of the words of object 1
    mass        share of attention that each role gets

Steps of a scan become noise levels by linear interpolation, so neither their number nor the grid
of the map decides the length of a signature. The direction of a relation is that of its dipole, in
units of the canvas.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.aggregate import Aggregator
from attnsearch.axes import HEAD, LAYER, RELATIONS, ROLE, ROLES
from attnsearch.errors import MetricError
from attnsearch.metrics.ranking import NOISE_LEVEL
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

    `address` has the coordinates model, layer and head; `column` has block, name (of the relation
    or role), axis (x, y or empty) and noise_level. A relation or role that a scan has not is 0.

    Raises:
        MetricError: there are no scans, or one does not state its relations or noise levels.
    """
    if not scans:
        raise MetricError("there are no scans to take signatures of")
    aggregate = aggregate or Aggregator()
    parts = [_of_scan(name, scan, aggregate) for name, scan in scans.items()]
    found = xr.concat(
        parts, "address", data_vars="minimal", coords="minimal", join="exact", compat="equals"
    )
    return found.assign_attrs(version=VERSION)


def standardised(signatures: xr.Dataset) -> Floats:
    """Signatures ready to be compared by inner product, [head, column], rows of unit length.

    Of every model each column has mean 0 and deviation 1 over its heads: raw columns tell models
    apart, not behaviours. Every block weighs the same, whatever its number of columns.
    """
    values = signatures["signature"].to_numpy().astype(np.float64)
    models = signatures["model"].to_numpy()
    for model in np.unique(models):
        own = values[models == model]
        deviation = own.std(axis=0)
        deviation[deviation < _SMALLEST] = np.inf
        values[models == model] = (own - own.mean(axis=0)) / deviation
    blocks = signatures["block"].to_numpy()
    for block in np.unique(blocks):
        values[:, blocks == block] /= np.sqrt((blocks == block).sum())
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
    for block, moved in (("relation", ["relation"]), ("object", subject)):
        dipole = np.sum([reader.dipoles(role) for role in moved], axis=0)
        responses = _responses(dipole, relations)
        for relation in RELATIONS:
            for number, axis in enumerate("xy"):
                columns.append((block, relation, axis))
                values.append(responses[relation][..., number])
    empty = np.zeros_like(values[0])
    for role in ROLES:
        columns.append(("mass", role, ""))
        values.append(reader.mass([role]).mean(axis=0) if role in roles else empty)
    # [column, step, head] -> [head, column and level]
    found = np.stack([_at_levels(value, levels) for value in values])
    layers, heads = scan[LAYER].to_numpy(), scan[HEAD].to_numpy()
    blocks, names, axes = (np.repeat(each, len(LEVELS)) for each in zip(*columns, strict=True))
    return xr.Dataset(
        {"signature": (("address", "column"), found.reshape(-1, found.shape[-1]).T)},
        coords={
            "model": ("address", np.full(len(layers) * len(heads), name, dtype=object)),
            "layer": ("address", np.repeat(layers, len(heads))),
            "head": ("address", np.tile(heads, len(layers))),
            "block": ("column", blocks),
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
