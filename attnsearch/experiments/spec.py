"""What an experiment is: a TOML file of a few keys, and the training run they stand for.

Nothing is trained or measured here. A key left out has the default below; a key that does not
exist, or a value that cannot be, is refused in one line that names the file and the key.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, get_args

from attnsearch import zoo
from attnsearch.encoders import EncoderKind, EncoderSpec, fit_pretrained
from attnsearch.errors import ConfigError
from attnsearch.intake import check_fields, quote, read_regular
from attnsearch.models import SIZES, DiTConfig, Objective, load_checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.task.captions import grid_captions, token_count
from attnsearch.task.spec import PRESETS, PhraseSet, TaskSpec
from attnsearch.task.wordings import wordings
from attnsearch.training import ColourDropout, TrainingConfig, WarmStart

_MAX_BYTES: Final = 64 * 2**10
"""Of a file of a dozen keys."""
_MAX_SEEDS: Final = 10_000
_MAX_SNAPSHOTS: Final = 1_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOTHING: Final = "none"
"""What `held_out_seed` says where nothing is held out, for TOML has no null."""
_KEYS: Final = {"start": "from"}
"""Keys that Python does not allow a field to be called by."""


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
    phrases: PhraseSet | None = None
    """Which wordings of a relation captions draw from; None leaves it to the preset."""
    colour_dropout: ColourDropout | None = None
    """How often a colour word is left out of a training caption; None leaves it to the preset."""
    held_out_seed: int | str | None = None
    """Seed of the held-out combinations, or `none` for no such; None leaves it to the preset."""
    start: str | None = None
    """Key `from`: what the weights begin with, a packaged model by name or a file that ends in
    `.pt`; None: at random."""
    objective: Objective = Objective.FLOW
    steps: int = 12_000
    """Optimiser steps in all."""
    learning_rate_factor: float | None = None
    """On both learning rates, None being 1; a model that has been trained wants less."""
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
        if self.learning_rate_factor is not None and not 0 < self.learning_rate_factor <= 100:
            raise ConfigError(
                "learning_rate_factor must be positive and at most 100, not "
                f"{self.learning_rate_factor}"
            )
        if isinstance(self.held_out_seed, str) and self.held_out_seed != _NOTHING:
            raise ConfigError(
                f"held_out_seed must be a whole number or {_NOTHING!r}, not "
                f"{quote(self.held_out_seed)}"
            )
        packaged = [None, *(path.stem for path in zoo.packaged())]
        if self.start not in packaged and not str(self.start).endswith(".pt"):
            raise ConfigError(
                "from must be a file that ends in .pt or a packaged model (`attnsearch zoo` lists "
                f"them), not {quote(self.start)}"
            )
        if self.colour_dropout is not None:
            self.colour_dropout.check_ends_within(self.steps)
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
        changes: dict[str, Any] = {}
        if self.min_distance is not None:
            changes["min_distance"] = self.min_distance
        if self.phrases is not None:
            changes["phrases"] = self.phrases
        if self.colour_dropout is not None:
            changes["colour_dropout"] = self.colour_dropout.last
        if self.held_out_seed is not None:
            seed = self.held_out_seed
            changes["held_out_seed"] = None if seed == _NOTHING else seed
        task = replace(PRESETS[self.task], **changes)
        # The other wordings that a model is tested on are longer than its captions.
        tested = [caption for group in wordings(task).values() for caption in group]
        longest = max(map(token_count, tested))
        return replace(task, text_length=max(task.text_length, longest))

    @property
    def sampler(self) -> SamplerConfig:
        """How its images are sampled."""
        return SamplerConfig(steps=self.sampling_steps, guidance=self.guidance)

    def table(self) -> dict[str, Any]:
        """Its keys as plain values, what is None left out; `parse_experiment` reads it back."""
        values = {_key(field): getattr(self, field.name) for field in fields(self)}
        return {key: _plain(value) for key, value in values.items() if value is not None}


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
    start = table.get("from")
    if isinstance(start, str) and start.endswith(".pt"):
        table["from"] = str(path.parent.absolute() / start)
    return parse_experiment(table | {"name": path.stem}, path)


def parse_experiment(table: Mapping[str, Any], path: Path) -> Experiment:
    """The experiment of a table that was read from `path`.

    Raises:
        ConfigError: a key is unknown or missing, or its value cannot be.
    """
    declared = {_key(field): field for field in fields(Experiment)}
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
        return Experiment(**{declared[key].name: value for key, value in values.items()})
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
    config = TrainingConfig(
        model=DiTConfig(
            image_side=spec.canvas,
            patch=16 if experiment.task == "paper" else 4,
            text_channels=text.channels,
            text_length=text.text_length,
            **asdict(SIZES[experiment.size]),
        ),
        encoder=text,
        task=spec,
        colour_dropout=experiment.colour_dropout,
        start=None if experiment.start is None else _warm_start(experiment.start),
        objective=experiment.objective,
        steps=experiment.steps,
        seed=experiment.seed,
        snapshots=experiment.snapshots,
    )
    factor = experiment.learning_rate_factor or 1.0
    return replace(
        config,
        learning_rate=config.learning_rate * factor,
        matrix_learning_rate=config.matrix_learning_rate * factor,
    )


def _warm_start(start: str) -> WarmStart:
    path = Path(start) if start.endswith(".pt") else zoo.FOLDER / f"{start}.pt"
    return WarmStart(name=path.stem, checkpoint=load_checkpoint(path))


def _key(field: "Field[Any]") -> str:
    """What a field is called in a file."""
    return _KEYS.get(field.name, field.name)


def _plain(value: Any) -> Any:
    if isinstance(value, ColourDropout):
        return value.plain()
    return str(value) if isinstance(value, StrEnum) else value


def _value(key: str, kind: Any, value: Any) -> Any:
    """A TOML value as its field's type; an int may stand for a float, a bool for nothing."""
    kinds = [each for each in get_args(kind) if each is not type(None)]
    if kinds == [int, str]:
        kinds = [str if isinstance(value, str) else int]
    kind = kinds[0] if kinds else kind
    if kind is ColourDropout:
        return ColourDropout.read(value)
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
