"""Scans in which what every head does is known, to see whether metrics find it.

Logits of image tokens for roles are made by hand: of every head its own constants, what was planted
in it, and noise of every sample. Softmax over the roles that a prompt has makes them maps. Objects
stand where the prompt asks for, a little off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import entr

from attnsearch.aggregation import basis_of
from attnsearch.axes import REGIONS, RELATION_DIRECTIONS, ROLES, SKETCH_AXES
from attnsearch.errors import ConfigError
from attnsearch.metrics.meaning import token_positions
from attnsearch.task.captions import Caption, grid_captions
from attnsearch.task.spec import PRESETS

Floats = npt.NDArray[np.float64]

GRID: Final = 8
_OBJECT_WIDTH: Final = 0.3
"""Deviation of the blob that is an object, in half canvases."""
_DISTANCE: Final = 0.45
"""Of an object from the centre."""
_JITTER: Final = 0.1


class Kind(StrEnum):
    """What a head does."""

    RELATIONAL = "relational"
    ONE_RELATION = "one relation"
    OBJECT = "object"
    SHAPE = "shape"
    COLOUR = "colour"
    FIXED = "fixed"
    DIFFUSE = "diffuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """One head.

    Raises:
        ConfigError: its strength is not finite.
    """

    kind: Kind = Kind.DIFFUSE
    strength: float = 0.0
    """Of what it does, in logits; below zero it does the opposite."""
    angle: float = 0.0
    """Where the bias of a fixed head points, radians from right, clockwise."""
    relation: str = "above"
    """That a head of one relation answers to."""
    base: tuple[float, ...] = (0.0,) * len(ROLES)
    """Logits of the roles, everywhere."""

    def __post_init__(self) -> None:
        if not np.isfinite([self.strength, self.angle, *self.base]).all():
            raise ConfigError("logits have to be finite")


def planted_scan(
    plants: Sequence[Plant],
    seed: int,
    *,
    noise: float = 0.5,
    replicates: int = 1,
    words: float = 0.0,
) -> xr.Dataset:
    """A scan of one layer and one step over the prompts of the task, a head for every plant.

    `noise` is the deviation of the logits of a sample; `replicates` of every prompt have different
    texts; `words` is the deviation of maps that every direction word has in every head, without
    meaning, as in a network with random weights.
    """
    rng = np.random.default_rng(seed)
    captions = grid_captions(PRESETS["small"]) * replicates
    positions = token_positions((GRID, GRID))
    frequencies = np.arange(GRID**2)
    scan = xr.Dataset(
        coords={
            "ky": ("basis", frequencies // GRID),
            "kx": ("basis", frequencies % GRID),
        },
        attrs={"grid": [GRID, GRID], "keys": len(ROLES)},
    )
    basis = basis_of(scan)
    patterns = {
        word: words * rng.normal(size=(len(plants), len(positions)))
        for word in sorted({word for caption in captions for word in caption.direction_words})
    }
    sketches = np.empty((len(captions), len(plants), len(ROLES), GRID**2), dtype=np.float32)
    regions = np.empty((len(captions), len(REGIONS), GRID**2), dtype=np.float32)
    entropy, peak = (np.empty((len(captions), len(plants)), dtype=np.float32) for _ in range(2))
    for number, caption in enumerate(captions):
        shown = _regions(caption, positions, rng)
        logits = noise * rng.normal(size=(len(plants), len(ROLES), len(positions)))
        logits += np.array([plant.base for plant in plants])[:, :, None]
        logits[:, ROLES.index("relation")] += sum(
            patterns[word] for word in caption.direction_words
        )
        for head, plant in enumerate(plants):
            logits[head] += plant.strength * _pattern(plant, caption, positions, shown)
        logits[:, [role not in (*caption.roles, "end", "pad") for role in ROLES]] = -np.inf
        maps = np.exp(logits - logits.max(axis=1, keepdims=True))
        maps /= maps.sum(axis=1, keepdims=True)
        sketches[number] = maps @ basis.T
        entropy[number] = entr(maps).sum(axis=1).mean(axis=-1)
        peak[number] = maps.max(axis=1).mean(axis=-1)
        regions[number] = shown @ basis.T
    texts = [
        caption.text if number < len(captions) // replicates else f"{caption.text} #{number}"
        for number, caption in enumerate(captions)
    ]
    return scan.assign(
        {
            "sketch": (SKETCH_AXES, sketches[:, None, None, None]),
            **{
                name: (SKETCH_AXES[:5], each[:, None, None, None])
                for name, each in (("entropy", entropy), ("peak", peak))
            },
            "region_coefficients": (("sample", "region", "basis"), regions),
        }
    ).assign_coords(
        {
            "prompt": ("sample", np.array(texts, dtype=object)),
            "relation": _texts([caption.relation for caption in captions]),
            "relation_words": _texts([" ".join(caption.direction_words) for caption in captions]),
            **{role: _texts([_word(caption, role) for caption in captions]) for role in _NAMED},
            "layer": [0],
            "head": np.arange(len(plants)),
            "step": [0],
            "noise_level": ("step", [1.0]),
            "branch": ["cond"],
            "role": list(ROLES),
            "region": list(REGIONS),
        }
    )


_NAMED: Final = ("colour1", "shape1", "colour2", "shape2")


def _word(caption: Caption, role: str) -> str:
    return caption.words[caption.roles.index(role)] if role in caption.roles else ""


def _texts(texts: list[str]) -> tuple[str, npt.NDArray[np.object_]]:
    return "sample", np.array(texts, dtype=object)


def _regions(caption: Caption, positions: Floats, rng: np.random.Generator) -> Floats:
    """Soft masks [region, token] of the objects and of what is left."""
    direction = np.array(RELATION_DIRECTIONS[caption.relation])
    places = _DISTANCE * np.stack([direction, -direction]) + _JITTER * rng.normal(size=(2, 2))
    distance = np.square(positions - places[:, None]).sum(axis=-1)
    objects = np.exp(-distance / (2 * _OBJECT_WIDTH**2))
    return np.concatenate([objects, np.clip(1 - objects.sum(axis=0), 0, 1)[None]])


def _pattern(plant: Plant, caption: Caption, positions: Floats, shown: Floats) -> Floats:
    """Logits [role, token] of a strength of 1."""
    logits = np.zeros((len(ROLES), len(positions)))
    relation = ROLES.index("relation")
    if plant.kind is Kind.RELATIONAL or (
        plant.kind is Kind.ONE_RELATION and caption.relation == plant.relation
    ):
        logits[relation] = positions @ np.array(RELATION_DIRECTIONS[caption.relation])
    elif plant.kind is Kind.FIXED:
        logits[relation] = positions @ np.array([np.cos(plant.angle), np.sin(plant.angle)])
    else:
        for kind in ("shape", "colour"):
            if plant.kind in (Kind.OBJECT, kind):
                for number in (1, 2):
                    logits[ROLES.index(f"{kind}{number}")] = shown[number - 1]
    return logits
