"""What a scan will sample and store, worked out before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from attnsearch.axes import REGIONS, RELATIONS, ROLES
from attnsearch.errors import CaptionError, ConfigError
from attnsearch.models import Checkpoint
from attnsearch.models.guidance import branches_of
from attnsearch.sampling import SamplerConfig, schedule
from attnsearch.store import SCORES, ScanLayout
from attnsearch.task.captions import Caption, grid_captions, parse
from attnsearch.task.spec import OBJECT_PAIRS, TaskSpec, held_out_combinations

_BLOCK_BYTES: Final = 16 * 2**20
_BLOCK_SAMPLES: Final = 64
_DEFAULT_ORDER: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanPlan:
    """One scan: every sample, and where its sketches go."""

    name: str
    """The scan's group in the store."""
    captions: list[Caption]
    """[sample]."""
    seeds: list[int]
    """[sample] seed of the initial noise."""
    sampler: SamplerConfig
    layout: ScanLayout
    coordinates: Mapping[str, npt.NDArray[Any]]
    attributes: Mapping[str, Any]


def plan_scan(
    checkpoint: Checkpoint,
    *,
    name: str,
    captions: Sequence[Caption],
    seeds: int,
    sampler: SamplerConfig,
    device: str,
    order: int | None = None,
) -> ScanPlan:
    """Plan a scan of every caption under seeds 0 to `seeds` - 1.

    All captions share a seed before the next seed begins, so that a scan cut short is still
    balanced over prompts; and all captions see the same noise, so that what differs between them
    is the text. `order` is the number of spatial frequencies kept along each axis of the image;
    by default all of them, up to 8. `device` is the name of the hardware, for the record.

    Raises:
        ConfigError: no captions, no seeds, or an order the image does not have.
    """
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, not {seeds}")
    if not captions:
        raise ConfigError("there are no prompts to scan")
    grid = checkpoint.model.grid
    order = min(_DEFAULT_ORDER, grid) if order is None else order
    if not 1 <= order <= grid:
        raise ConfigError(f"order must lie between 1 and the {grid} image tokens of a side")
    every_caption = [caption for _ in range(seeds) for caption in captions]
    every_seed = [seed for seed in range(seeds) for _ in captions]
    branches = tuple(str(branch) for branch in branches_of(sampler.guidance))
    sketch_bytes = (
        2 * sampler.steps * len(branches) * checkpoint.model.depth * checkpoint.model.heads
        * len(ROLES) * order**2
    )  # fmt: skip
    return ScanPlan(
        name=name,
        captions=every_caption,
        seeds=every_seed,
        sampler=sampler,
        layout=ScanLayout(
            samples=len(every_caption),
            steps=sampler.steps,
            branches=branches,
            layers=checkpoint.model.depth,
            heads=checkpoint.model.heads,
            roles=ROLES,
            regions=REGIONS,
            scores=tuple(SCORES),
            order=order,
            block=min(max(1, _BLOCK_BYTES // sketch_bytes), _BLOCK_SAMPLES, len(every_caption)),
            canvas=(checkpoint.task.canvas, checkpoint.task.canvas),
        ),
        coordinates=_coordinates(checkpoint, every_caption, every_seed, sampler),
        attributes=_attributes(checkpoint, sampler, device),
    )


def read_prompts(source: str, task: TaskSpec) -> list[Caption]:
    """The prompts named on the command line: `grid`, or a text file with one caption a line.

    Raises:
        CaptionError: the file cannot be read, or a line does not follow the task's grammar.
    """
    if source == "grid":
        return grid_captions(task)
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CaptionError(f"cannot read prompts from {source}: {error}") from error
    return [parse(line) for line in lines if line.strip()]


def scan_name(checkpoint: Path) -> str:
    """The default name of a checkpoint's scan: its file's, or its folder's for a run's files."""
    generic = checkpoint.stem in ("model", "checkpoint")
    return checkpoint.resolve().parent.name if generic else checkpoint.stem


def device_name(device: torch.device) -> str:
    """What a store records as the hardware: the name of the GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _coordinates(
    checkpoint: Checkpoint,
    captions: Sequence[Caption],
    seeds: Sequence[int],
    sampler: SamplerConfig,
) -> dict[str, npt.NDArray[Any]]:
    held_out = held_out_combinations(checkpoint.task)
    steps = schedule(checkpoint.objective, sampler)
    text = {
        "prompt": [caption.text for caption in captions],
        "relation": [caption.relation for caption in captions],
        "relation_words": [" ".join(caption.direction_words) for caption in captions],
    }
    for index in range(2):
        pairs = [OBJECT_PAIRS[caption.pair][index] for caption in captions]
        named = [caption.colours_named[index] for caption in captions]
        text[f"colour{index + 1}"] = [
            pair[0] if said else "" for pair, said in zip(pairs, named, strict=True)
        ]
        text[f"shape{index + 1}"] = [pair[1] for pair in pairs]
    combinations = [(caption.pair, RELATIONS.index(caption.relation)) for caption in captions]
    return {
        **{name: np.array(values, dtype=object) for name, values in text.items()},
        "held_out": np.array([combination in held_out for combination in combinations]),
        "seed": np.array(seeds, dtype=np.int64),
        "timestep": steps.timestep,
        "noise_level": steps.noise_level,
    }


def _attributes(checkpoint: Checkpoint, sampler: SamplerConfig, device: str) -> dict[str, Any]:
    model = checkpoint.model
    return {
        "checkpoint_sha256": checkpoint.digest,
        "training_step": checkpoint.step,
        "encoder": str(checkpoint.encoder.kind),
        "objective": str(checkpoint.objective),
        "grid": [model.grid, model.grid],
        "model": asdict(model),
        "task": {
            name: str(value) if isinstance(value, str) else value
            for name, value in asdict(checkpoint.task).items()
        },
        "sampler": asdict(sampler),
        "versions": {name: version(name) for name in ("attnsearch", "torch", "diffusers")},
        "device": device,
    }
