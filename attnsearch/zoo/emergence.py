"""How a model came to paint relations: accuracies and heads of the snapshots of its training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attnsearch import zoo
from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError
from attnsearch.intake import one_line, quote, read_json

_MAX_BYTES: Final = 64 * 2**20
"""Of a file that has every head of every snapshot: a thousand snapshots have some 20 MiB."""
_MAX_STEP: Final = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was measured of a model at one step of its training."""

    step: int
    """Optimiser steps taken."""
    shape: float
    """Share of images with both shapes; this and the next three are of combinations trained on."""
    colour: float
    binding: float
    """Share with exactly one object of each asked shape in its colour."""
    relation_loose: float
    """Share with the asked relation too."""
    head: HeadAddress
    """The head with the relational score of the largest size."""
    score: float
    q_value: float

    @property
    def relation_given_binding(self) -> float | None:
        """Share with the asked relation among images with the asked objects; None without any.

        A model that knows the words of a caption and not their order gets half of them at best.
        """
        return self.relation_loose / self.binding if self.binding else None


def read_emergence(model: Path) -> list[Snapshot]:
    """The snapshots of a published checkpoint, or of a run's folder, by step.

    Raises:
        ConfigError: there is no such model, its training was not followed, or the file is damaged.
    """
    if not model.exists():
        raise ConfigError(f"no such file: {model}")
    path = model / "emergence.json" if model.is_dir() else zoo.beside(model, "emergence")
    try:
        rows = read_json(path, _MAX_BYTES)
        if not rows:
            raise ValueError("it holds no snapshot")
        return [_snapshot(row) for row in rows]
    except FileNotFoundError as error:
        raise ConfigError(
            f"the training of {model} was not followed; its experiment needs `snapshots = 24`"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise ConfigError(f"{path} is damaged: {one_line(str(error), 200)}") from error


def _snapshot(row: Any) -> Snapshot:
    measures = ("shape", "colour", "binding", "relation_loose")
    best = row["heads"][0]
    return Snapshot(
        step=_count(row["step"]),
        head=HeadAddress(_count(best["layer"]), _count(best["head"])),
        score=_within(best["score"], -1),
        q_value=_within(best["q_value"], 0),
        **{name: _within(row["accuracies"][f"in_distribution_{name}"], 0) for name in measures},
    )


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_STEP:
        raise ValueError(f"{quote(value)} is no count")
    return value


def _within(value: Any, least: float) -> float:
    """A number from `least` to 1; NaN where nothing could be measured."""
    if type(value) not in (int, float) or value < least or value > 1:
        raise ValueError(f"{quote(value)} is no number from {least} to 1")
    return float(value)
