"""The models that come with the package, and what is known of each without loading it.

Beside every checkpoint `NAME.pt` lie its training log and what was measured of it, one file per
part: `NAME.config.json`, `NAME.evaluation.json`, `NAME.ranking.json`, `NAME.log.jsonl` and, where
its training was followed, `NAME.emergence.json`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError

FOLDER: Final = Path(__file__).parent
"""Where the packaged models are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One line of the list of models; None where no file tells."""

    name: str
    path: str
    encoder: str | None
    size: str | None
    seed: int | None
    parameters: int | None
    relation_loose: float | None
    """Share of images with the asked relation, combinations it was trained on."""
    relation_loose_held_out: float | None
    """The same, combinations held out from training."""
    head: str | None
    """The head with the relational score of the largest size."""
    score: float | None
    q_value: float | None


def packaged(folder: Path = FOLDER) -> list[Path]:
    """Checkpoint files of the models in a folder, by name; by default those packaged."""
    return sorted(folder.glob("*.pt"))


def demonstration() -> Path:
    """The checkpoint of `make demo`."""
    return FOLDER / "rtep-femto-seed0.pt"


def beside(checkpoint: Path, part: str) -> Path:
    """The file of a part (`config`, `evaluation`, `ranking`, `emergence`, `log`)."""
    return checkpoint.with_name(f"{checkpoint.stem}.{part}.{'jsonl' if part == 'log' else 'json'}")


def summarise(checkpoint: Path) -> Summary:
    """What the files beside a checkpoint say of it; the checkpoint itself is not read.

    Raises:
        ConfigError: one of the files is damaged.
    """
    config = _read(checkpoint, "config")
    evaluation = _read(checkpoint, "evaluation")
    ranking = _read(checkpoint, "ranking")
    try:
        return _summary(checkpoint, config, evaluation, ranking)
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"a record beside {checkpoint} is damaged: {error}") from error


def _summary(
    checkpoint: Path, config: dict[str, Any], evaluation: dict[str, Any], ranking: dict[str, Any]
) -> Summary:
    best = (ranking.get("heads") or [{}])[0]
    return Summary(
        name=checkpoint.stem,
        path=str(checkpoint),
        encoder=config.get("encoder"),
        size=config.get("size"),
        seed=config.get("seed"),
        parameters=config.get("parameters"),
        relation_loose=_loose(evaluation, "in_distribution"),
        relation_loose_held_out=_loose(evaluation, "held_out"),
        head=str(HeadAddress(best["layer"], best["head"])) if best else None,
        score=best.get("score"),
        q_value=best.get("q_value"),
    )


def _loose(evaluation: dict[str, Any], split: str) -> float | None:
    value: float | None = evaluation.get(split, {}).get("relation_loose", {}).get("value")
    return value


def _read(checkpoint: Path, part: str) -> dict[str, Any]:
    path = beside(checkpoint, part)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is damaged: it holds no table")
    return content
