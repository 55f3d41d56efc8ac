"""From a path to a finished scan: which kind of model lies there, and which prompts it is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from attnsearch.capturing.regions import Segmenter
from attnsearch.encoders import EncoderKind
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint, Vae, load_checkpoint, load_pixart
from attnsearch.models.pipelines import is_pipeline
from attnsearch.prompts import Prompt, read_prompts
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning.dit import DiTSubject
from attnsearch.scanning.execute import execute_plan
from attnsearch.scanning.pipeline import PipelineSubject
from attnsearch.scanning.plan import GRIDS, plan_scan, read_captions
from attnsearch.scanning.subject import Subject
from attnsearch.store import Place
from attnsearch.task.spec import PRESETS

GRID: Final = "grid"
"""Of `GRIDS`, the one that names all colours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a file does not tell about itself.

    Raises:
        ConfigError: details of an encoder are given and no encoder is named.
    """

    encoder: EncoderKind | None = None
    """Text encoder of a PixArt checkpoint."""
    encoder_source: str = ""
    """Folder or hub name of a T5 or CLIP encoder."""
    encoder_dtype: str = "float32"
    heads: int | None = None
    """Heads of a PixArt checkpoint whose width does not tell them."""
    vae: Path | None = None
    """Folder of the VAE that decodes a latent model's images."""
    size: int | None = None
    """Side of a pipeline's images, pixels."""
    segmenter: Segmenter | None = None
    """Finds regions in a pipeline's images."""
    regions: tuple[str, ...] = ()
    """Their names."""
    control: bool = False
    """Shuffle the weights of a checkpoint, for a scan that others are compared with."""

    def __post_init__(self) -> None:
        if self.encoder is None and (self.encoder_source or self.heads is not None):
            raise ConfigError("a PixArt checkpoint is read with --encoder rte, rtep, t5 or clip")


def open_subject(path: Path, device: torch.device, reading: Reading | None = None) -> Subject:
    """The model at a path: a checkpoint of ours, a PixArt checkpoint, or a pipeline's folder.

    Raises:
        AttnsearchError: it cannot be read, or `reading` does not fit what lies there.
    """
    told = reading or Reading()
    if is_pipeline(path):
        if told.control:
            raise ConfigError(f"{path} is a pipeline; controls are made of checkpoints")
        if told.encoder is not None or told.vae is not None:
            raise ConfigError(f"{path} is a pipeline and brings its own encoder and VAE")
        return PipelineSubject(
            path, device, size=told.size, segmenter=told.segmenter, regions=told.regions
        )
    if path.is_dir():
        raise ConfigError(f"{path} is neither a checkpoint file nor a pipeline's folder")
    if told.segmenter is not None:
        raise ConfigError(f"the images of {path} have a scorer of their own")
    if told.size is not None:
        raise ConfigError(f"the size of the images of {path} is fixed; --size is for pipelines")
    vae = None if told.vae is None else Vae(told.vae, device)
    return DiTSubject(read_checkpoint(path, told), device, vae)


def read_checkpoint(path: Path, reading: Reading) -> Checkpoint:
    """A checkpoint of ours, or a PixArt checkpoint where `reading` names its encoder.

    Raises:
        AttnsearchError: it cannot be read, or is of another kind.
    """
    if reading.encoder is None:
        checkpoint = load_checkpoint(path)
    else:
        checkpoint = load_pixart(
            path,
            encoder=reading.encoder,
            source=reading.encoder_source,
            dtype=reading.encoder_dtype,
            heads=reading.heads,
        )
    return checkpoint.shuffled() if reading.control else checkpoint


def prompts_of(subject: Subject, source: str) -> list[Prompt]:
    """The prompts named on the command line: of `GRIDS`, or a file in the form the subject reads.

    Raises:
        AttnsearchError: the file cannot be read, or a line does not follow its format.
    """
    if isinstance(subject, DiTSubject):
        return read_captions(source, subject.checkpoint.task)
    if source in GRIDS:
        return read_captions(source, PRESETS["small"])
    return read_prompts(Path(source))


def scan(
    path: Path,
    store: Place,
    *,
    name: str | None = None,
    prompts: str = GRID,
    seeds: int = 4,
    sampler: SamplerConfig | None = None,
    order: int | None = None,
    batch: int | None = None,
    reading: Reading | None = None,
    device: torch.device | None = None,
) -> None:
    """Sample a model and keep a sketch of every text attention map in a store.

    `path` is a checkpoint or the folder of a diffusers pipeline. `prompts` is one of `GRIDS`, or a
    file: captions of the two-object task for a checkpoint, free prompts with roles for a pipeline
    (see `prompts.read_prompts`); each is painted under seeds 0 to `seeds` - 1. Called again after
    an interruption, it goes on where it stopped.

    Raises:
        AttnsearchError: the model, the prompts or the store are not usable.
    """
    subject = open_subject(path, device or torch.device("cpu"), reading)
    plan = plan_scan(
        subject,
        name=name or scan_name(path, control=reading is not None and reading.control),
        prompts=prompts_of(subject, prompts),
        seeds=seeds,
        sampler=sampler or SamplerConfig(),
        order=order,
        batch=batch,
    )
    execute_plan(plan, subject, store)


def scan_name(path: Path, *, control: bool = False) -> str:
    """The default name of a model's scan: its file's, or its folder's for a run's files."""
    if path.is_dir():
        return path.resolve().name
    generic = path.stem in ("model", "checkpoint")
    name = path.resolve().parent.name if generic else path.stem
    return f"{name}-control" if control else name
