"""One vector for every head, comparable between models of different depth, width and sampler.

Version 2 has five parts, groups of columns, each at the noise levels of `LEVELS`:

    relation    dipole (x, y) of the map of the relation words for each relation, less that of the
                mean over relations: mean over image tokens of attention times position, which
                runs from -1 to 1 across the canvas
    object      the same of the words of object 1
    place       that mean over relations, of the relation words and of the words of object 1
    mass        share of attention that each role gets
    sharpness   entropy of the attention over text tokens, and its largest share

Steps of a scan become noise levels by linear interpolation, so neither their number nor the grid
of the map decides the length of a signature.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from attnsearch.aggregation import Aggregator
from attnsearch.axes import HEAD, LAYER, RELATIONS, ROLE, ROLES, HeadAddress
from attnsearch.cleanup import placed
from attnsearch.errors import MetricError
from attnsearch.metrics.ranking import CONTROL, NOISE_LEVEL
from attnsearch.metrics.reader import Reader

VERSION: Final = 3
LEVELS: Final = (0.9, 0.7, 0.5, 0.3, 0.1)
"""Of noise, between 0 and 1; outside those of a scan its first or last step counts."""
_SHARPNESS: Final = ("entropy", "peak")
_SUBJECT: Final = ("colour1", "shape1")
_RESOLUTION: Final = 0.01
"""Share of attention, moved by half a canvas or merely given; heads that differ by less are alike:
what varies less within a model is noise, and is not to be blown up to the size of the rest."""

Floats = npt.NDArray[np.float64]


def signatures(
    scans: Mapping[str, xr.Dataset],
    aggregate: Aggregator | None = None,
    saved: Path | str | None = None,
) -> xr.Dataset:
    """The signatures of all heads of some scans: `signature` (address, column).

    In the folder `saved` they are kept from call to call, as long as the scans do not change.

    `address` is written MODEL:L2H8 and has the coordinates model, layer and head; `column` has
    part, name (of the relation or role), axis (x, y or empty) and noise_level. A relation or role
    that a scan has not is 0. Controls are left out.

    Raises:
        MetricError: there are no scans but controls, or one does not state its relations or noise
            levels.
    """
    aggregate = aggregate or Aggregator()
    found = [
        _kept(Path(saved), name, scan, aggregate) if saved else _of_scan(name, scan, aggregate)
        for name, scan in scans.items()
        if not scan.attrs.get(CONTROL)
    ]
    if not found:
        raise MetricError("there are no scans to take signatures of, other than controls")
    together = xr.concat(
        [_labelled(*each) for each in found],
        "address",
        data_vars="minimal",
        coords="minimal",
        join="exact",
        compat="equals",
    )
    return together.assign_attrs(version=VERSION)


def standardised(signatures: xr.Dataset) -> Floats:
    """Signatures ready to be compared by inner product, [head, column], rows of unit length.

    Of every model each column has mean 0 and deviation 1 over its heads, or less where heads hardly
    differ: raw columns tell models apart, not behaviours. Every part weighs the same, whatever its
    number of columns.
    """
    values = signatures["signature"].to_numpy().astype(np.float64)
    models = signatures["model"].to_numpy()
    for model in np.unique(models):
        own = values[models == model]
        values[models == model] = (own - own.mean(axis=0)) / np.hypot(own.std(axis=0), _RESOLUTION)
    parts = signatures["part"].to_numpy()
    for part in np.unique(parts):
        values[:, parts == part] /= np.sqrt((parts == part).sum())
    return unit_rows(values)


def unit_rows(values: Floats) -> Floats:
    """Rows of unit length; a row of zeros stays."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(length > 0, length, 1)


_Heads = tuple[str, list[HeadAddress], Floats]
"""Of one scan: its name, its heads, and their signatures [head, column]."""


def _of_scan(name: str, scan: xr.Dataset, aggregate: Aggregator) -> _Heads:
    if NOISE_LEVEL not in scan.coords:
        raise MetricError(f"{name} does not say the noise levels of its steps")
    reader = Reader(model=name, scan=scan, aggregate=aggregate)
    relations = reader.relations().relations
    roles = {str(role) for role in scan[ROLE].to_numpy()}
    subject = [role for role in _SUBJECT if role in roles]
    moved, placed = [], []
    for words in (["relation"], subject):
        dipole = np.sum([reader.dipoles(role) for role in words], axis=0) / np.prod(reader.grid)
        responses, centre = _responses(dipole, relations)
        moved += [responses[relation][..., axis] for relation in RELATIONS for axis in (0, 1)]
        placed += [centre[..., axis] for axis in (0, 1)]
    empty = np.zeros_like(moved[0])
    mass = [_mass(reader, role) if role in roles else empty for role in ROLES]
    sharpness = [reader.stored(name).mean(axis=0) for name in _SHARPNESS]
    values = [*moved, *placed, *mass, *sharpness]
    # [column, step, head] -> [head, column and level]
    levels = scan[NOISE_LEVEL].to_numpy()
    found = np.stack([_at_levels(value, levels) for value in values])
    return name, _heads(scan), found.reshape(-1, found.shape[-1]).T


def _mass(reader: Reader, role: str) -> Floats:
    """Share of attention [step, head] of a role in prompts that have it; zeros if none has."""
    values, having = reader.mass([role]), reader.having([role])
    return values[having].mean(axis=0) if having.any() else np.zeros_like(values[0])


def _kept(folder: Path, name: str, scan: xr.Dataset, aggregate: Aggregator) -> _Heads:
    """What the folder holds of a scan, or what it is now, which it then holds."""
    heads, path = _heads(scan), folder / f"{name}.npz"
    # Arrays of a store are named after the records of what was read from it.
    names = sorted((str(key), scan[key].data.name) for key in scan if scan[key].chunks)
    key = tokenize(VERSION, names, scan.attrs.get("layout"))
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["key"]) == key:
                return name, heads, file["signature"].astype(np.float64)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass  # not there, or damaged: it can be had again
    found = _of_scan(name, scan, aggregate)
    with suppress(OSError):  # beside a store that may only be read, nothing is kept
        folder.mkdir(exist_ok=True)
        with placed(path, path.with_name(f".{name}.{os.getpid()}.npz")) as partial:
            np.savez(partial, key=key, signature=found[2])
    return found


def _labelled(name: str, heads: list[HeadAddress], values: Floats) -> xr.Dataset:
    columns = [
        *((part, of, axis) for part in ("relation", "object") for of in RELATIONS for axis in "xy"),
        *(("place", of, axis) for of in ("relation", "object") for axis in "xy"),
        *(("mass", role, "") for role in ROLES),
        *(("sharpness", name, "") for name in _SHARPNESS),
    ]
    parts, names, axes = (np.repeat(each, len(LEVELS)) for each in zip(*columns, strict=True))
    return xr.Dataset(
        {"signature": (("address", "column"), values)},
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


def _heads(scan: xr.Dataset) -> list[HeadAddress]:
    return [HeadAddress(int(k), int(h)) for k in scan[LAYER].values for h in scan[HEAD].values]


def _responses(
    dipole: Floats, relations: npt.NDArray[np.object_]
) -> tuple[dict[str, Floats], Floats]:
    """Of each relation the mean dipole of its prompts less that of all, and the latter.

    Both [step, head, xy]; every relation counts the same in the mean of all.
    """
    stated = [relation for relation in RELATIONS if (relations == relation).any()]
    means = {relation: dipole[relations == relation].mean(axis=0) for relation in stated}
    centre = np.mean([*means.values()], axis=0)
    nothing = np.zeros_like(centre)
    moved = {
        relation: means[relation] - centre if relation in means else nothing
        for relation in RELATIONS
    }
    return moved, centre


def _at_levels(value: Floats, levels: Floats) -> Floats:
    """[step, head] at the common noise levels, [level, head]."""
    order = np.argsort(levels)
    return np.stack([np.interp(LEVELS, levels[order], each[order]) for each in value.T], axis=1)
