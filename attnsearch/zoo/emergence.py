"""How a model came to paint relations: accuracies and heads of the snapshots of its training."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnsearch import zoo
from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError


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
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not rows:
            raise ValueError("it holds no snapshot")
        return [_snapshot(row) for row in rows]
    except FileNotFoundError as error:
        raise ConfigError(
            f"the training of {model} was not followed; its experiment needs `snapshots = 24`"
        ) from error
    except (ValueError, TypeError, LookupError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error


def _snapshot(row: Any) -> Snapshot:
    measures = ("shape", "colour", "binding", "relation_loose")
    best = row["heads"][0]
    return Snapshot(
        step=int(row["step"]),
        head=HeadAddress(int(best["layer"]), int(best["head"])),
        score=float(best["score"]),
        q_value=float(best["q_value"]),
        **{name: float(row["accuracies"][f"in_distribution_{name}"]) for name in measures},
    )
