"""What an experiment is: a TOML file of a few keys, and the training run they stand for.

Nothing is trained or measured here. A key left out has the default below; a key that does not
exist, or a value that cannot be, is refused in one line that names the file and the key.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from attnsearch.encoders import EncoderKind, EncoderSpec, fit_pretrained
from attnsearch.errors import ConfigError
from attnsearch.intake import check_fields, quote, read_regular
from attnsearch.models import SIZES, DiTConfig, Objective
from attnsearch.sampling import SamplerConfig
from attnsearch.task.captions import grid_captions
from attnsearch.task.spec import PRESETS, PhraseSet, TaskSpec
from attnsearch.training import TrainingConfig

_MAX_BYTES: Final = 64 * 2**10
"""Of a file of a dozen keys."""
_MAX_SEEDS: Final = 10_000
_MAX_SNAPSHOTS: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One model to train and measure: an encoder, a size, a seed, a task.

    Raises:
        ConfigError: a value is out of range, or two values contradict each other.
    """

    name: str
    """Of the run's folder, of its scan and of what is published; the stem of the file."""
    encoder: EncoderKind
    size: str
    """A name in `attnsearch.models.SIZES`."""
    seed: int
    """Of weights, scenes and noise."""
    encoder_source: str = ""
    """Folder or hub name of a T5 or CLIP encoder."""
    encoder_dtype: str = "float32"
    """What a pretrained encoder computes in, `float32` or `bfloat16`."""
    task: str = "small"
    """Name of a task preset."""
    min_distance: float | None = None
    """Smallest distance of the two centres in radii; None leaves it to the preset."""
    objective: Objective = Objective.FLOW
    steps: int = 12_000
    """Optimiser steps in all."""
    snapshots: int = 0
    """Checkpoints along the training that are evaluated and scanned, the last step's included."""
    evaluation_seeds: int = 8
    """Images per prompt of the final evaluation."""
    scan_seeds: int = 4
    """Images per prompt of the final scan."""
    sampling_steps: int = 14
    """Calls of the network per image."""
    guidance: float = 4.5
    """Weight of classifier-free guidance."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            steps=1_000_000_000,
            snapshots=_MAX_SNAPSHOTS,
            evaluation_seeds=_MAX_SEEDS,
            scan_seeds=_MAX_SEEDS,
        )
        for key, known in (("size", SIZES), ("task", PRESETS)):
            if getattr(self, key) not in known:
                raise ConfigError(
                    f"{key} must be one of {', '.join(known)}, not {quote(getattr(self, key))}"
                )
        for key in ("steps", "evaluation_seeds", "scan_seeds"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} must be at least 1, not {getattr(self, key)}")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed must fit 64 bits, not {self.seed}")
        if not 0 <= self.snapshots <= self.steps:
            raise ConfigError(f"snapshots must lie between 0 and steps, not {self.snapshots}")
        if not 1 <= self.sampling_steps <= 999:
            raise ConfigError(
                f"sampling_steps must lie between 1 and 999, not {self.sampling_steps}"
            )
        # Refuse the rest by the rules of those who know it, before a pretrained encoder is read.
        self.task_spec()
        EncoderSpec(
            kind=self.encoder,
            channels=2,
            text_length=1,
            source=self.encoder_source,
            dtype=self.encoder_dtype,
        )

    def task_spec(self) -> TaskSpec:
        """The preset with the overrides of this experiment."""
        preset = PRESETS[self.task]
        if self.min_distance is None:
            return preset
        return replace(preset, min_distance=self.min_distance)

    @property
    def sampler(self) -> SamplerConfig:
        """How its images are sampled."""
        return SamplerConfig(steps=self.sampling_steps, guidance=self.guidance)

    def table(self) -> dict[str, str | int | float]:
        """Its keys as plain values, what is None left out; `parse_experiment` reads it back."""
        return {
            key: str(value) if isinstance(value, StrEnum) else value
            for key, value in asdict(self).items()
            if value is not None
        }


def read_experiment(path: Path) -> Experiment:
    """The experiment a TOML file describes, called by the stem of the file.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, or a value that cannot be.
    """
    try:
        table = tomllib.loads(read_regular(path, _MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is no experiment: brackets are nested too deeply") from error
    except ValueError as error:  # Python's own limit, whose message tells how to lift it
        raise ConfigError(f"{path} is no experiment: an integer has thousands of digits") from error
    if not _NAME.fullmatch(path.stem):
        raise ConfigError(f"{path}: an experiment's file is named in letters, digits, '.-_'")
    if "name" in table:
        raise ConfigError(f"{path}: unknown key 'name'; an experiment is called by its file")
    return parse_experiment(table | {"name": path.stem}, path)


def parse_experiment(table: Mapping[str, Any], path: Path) -> Experiment:
    """The experiment of a table that was read from `path`.

    Raises:
        ConfigError: a key is unknown or missing, or its value cannot be.
    """
    declared = {field.name: field for field in fields(Experiment)}
    for key in table:
        if key not in declared:
            raise ConfigError(f"{path}: unknown key {quote(key)}; known: {', '.join(declared)}")
    for key, field in declared.items():
        if field.default is MISSING and key not in table:
            raise ConfigError(f"{path}: key {key!r} is missing")
    try:
        values = {key: _value(key, declared[key].type, table[key]) for key in table}
        if not _NAME.fullmatch(values["name"]):  # it becomes that of files
            raise ConfigError(f"name must be letters, digits, '.-_', not {quote(values['name'])}")
        return Experiment(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def training_config(experiment: Experiment) -> TrainingConfig:
    """The training run of an experiment.

    Random token embeddings are 64 wide, 4096 under the paper's task; pretrained ones are as wide
    as their model, and long enough for every wording of a relation.

    Raises:
        AttnsearchError: the encoder cannot be read.
    """
    spec = experiment.task_spec()
    text = _encoder_spec(experiment, spec)
    return TrainingConfig(
        model=DiTConfig(
            image_side=spec.canvas,
            patch=16 if experiment.task == "paper" else 4,
            text_channels=text.channels,
            text_length=text.text_length,
            **asdict(SIZES[experiment.size]),
        ),
        encoder=text,
        task=spec,
        objective=experiment.objective,
        steps=experiment.steps,
        seed=experiment.seed,
        snapshots=experiment.snapshots,
    )


def _value(key: str, kind: Any, value: Any) -> Any:
    """A TOML value as its field's type; an int may stand for a float, a bool for nothing."""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if value not in list(kind):
            raise ConfigError(f"{key} must be one of {', '.join(kind)}, not {quote(value)}")
        return kind(value)
    if kind in (str, int):
        if type(value) is not kind:
            word = "text" if kind is str else "a whole number"
            raise ConfigError(f"{key} must be {word}, not {quote(value)}")
        return value
    if type(value) not in (int, float):
        raise ConfigError(f"{key} must be a number, not {quote(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise ConfigError(f"{key} must be a finite number, not {quote(value)}") from error


def _encoder_spec(experiment: Experiment, task: TaskSpec) -> EncoderSpec:
    kind, source, dtype = experiment.encoder, experiment.encoder_source, experiment.encoder_dtype
    if kind.is_random:
        return EncoderSpec(
            kind=kind,
            channels=4096 if experiment.task == "paper" else 64,
            text_length=task.text_length,
            source=source,
            dtype=dtype,
        )
    wordings = grid_captions(replace(task, phrases=PhraseSet.ALL))
    return fit_pretrained(kind, source, dtype, wordings, at_least=task.text_length)
