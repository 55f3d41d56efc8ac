"""The models that come with the package, and what is known of each without loading it.

Beside every checkpoint `NAME.pt` lie its training log and what was measured of it, one file per
part: `NAME.config.json`, `NAME.evaluation.json`, `NAME.ranking.json`, `NAME.log.jsonl` and, where
its training was followed, `NAME.emergence.json`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError
from attnsearch.intake import one_line, quote, read_json

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
    except (AttributeError, LookupError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"a record beside {checkpoint} is damaged: {one_line(str(error), 200)}"
        ) from error


def _summary(
    checkpoint: Path, config: dict[str, Any], evaluation: dict[str, Any], ranking: dict[str, Any]
) -> Summary:
    best = (ranking.get("heads") or [{}])[0]
    return Summary(
        name=checkpoint.stem,
        path=str(checkpoint),
        encoder=_text(config.get("encoder")),
        size=_text(config.get("size")),
        seed=_count(config.get("seed")),
        parameters=_count(config.get("parameters")),
        relation_loose=_loose(evaluation, "in_distribution"),
        relation_loose_held_out=_loose(evaluation, "held_out"),
        head=_head(best),
        score=_number(best.get("score")),
        q_value=_number(best.get("q_value")),
    )


def _loose(evaluation: dict[str, Any], split: str) -> float | None:
    return _number(evaluation.get(split, {}).get("relation_loose", {}).get("value"))


def _head(best: dict[str, Any]) -> str | None:
    layer, head = (_count(best["layer"]), _count(best["head"])) if best else (None, None)
    return None if layer is None or head is None else str(HeadAddress(layer, head))


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{quote(value)} is no text")
    return value


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value.bit_length() > 64):
        raise TypeError(f"{quote(value)} is no count")
    return value


def _number(value: Any) -> float | None:
    if value is not None and type(value) not in (int, float):
        raise TypeError(f"{quote(value)} is no number")
    return None if value is None else float(value)


def _read(checkpoint: Path, part: str) -> dict[str, Any]:
    path = beside(checkpoint, part)
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is damaged: it holds no table")
    return content
