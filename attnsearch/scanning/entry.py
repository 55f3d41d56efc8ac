"""From a path to a finished scan: which kind of model lies there, and which prompts it is given."""

from pathlib import Path
from typing import Final

import torch

from attnsearch.lookup import check_scan_name, find_model, find_store, is_pipeline, name_scan
from attnsearch.models import Checkpoint, Vae, load_checkpoint, load_pixart
from attnsearch.prompts import Prompt, read_prompts
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning.dit import DiTSubject
from attnsearch.scanning.execute import execute_plan
from attnsearch.scanning.pipeline import PipelineSubject
from attnsearch.scanning.plan import plan_scan, read_captions
from attnsearch.scanning.reading import Reading
from attnsearch.scanning.subject import Subject
from attnsearch.store import Place
from attnsearch.task.spec import GRIDS, PRESETS

GRID: Final = "grid"
"""Of `GRIDS`, the one that names all colours."""


def open_subject(path: Path, device: torch.device, reading: Reading | None = None) -> Subject:
    """The model at a path: a checkpoint of ours, a PixArt checkpoint, or a pipeline's folder.

    Raises:
        AttnsearchError: it cannot be read, or `reading` does not fit what lies there.
    """
    told = reading or Reading()
    told.check(path)
    if is_pipeline(path):
        return PipelineSubject(
            path, device, size=told.size, segmenter=told.segmenter, regions=told.regions
        )
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
    model: Path | str,
    store: Place | None = None,
    *,
    name: str | None = None,
    prompts: Path | str = GRID,
    seeds: int = 4,
    sampler: SamplerConfig | None = None,
    order: int | None = None,
    batch: int | None = None,
    reading: Reading | None = None,
    device: torch.device | None = None,
) -> None:
    """Sample a model and keep a sketch of every text attention map in a store.

    `model` is a checkpoint, the folder of a diffusers pipeline, or the name of a packaged model.
    The store is by default the one in ATTNSEARCH_STORE, or `attnsearch.zarr` in the working
    directory. `prompts` is one of `GRIDS`, or a file: captions of the two-object task for a
    checkpoint, free prompts with roles for a pipeline (see `prompts.read_prompts`); each is painted
    under seeds 0 to `seeds` - 1. Called again after an interruption, it goes on where it stopped.

    Raises:
        AttnsearchError: the model, the prompts or the store are not usable.
    """
    path = find_model(model)
    named = name or name_scan(path, control=reading is not None and reading.control)
    check_scan_name(named)
    place = find_store(store, make=True)
    subject = open_subject(path, device or torch.device("cpu"), reading)
    plan = plan_scan(
        subject,
        name=named,
        prompts=prompts_of(subject, str(prompts)),
        seeds=seeds,
        sampler=sampler or SamplerConfig(),
        order=order,
        batch=batch,
    )
    execute_plan(plan, subject, place)
