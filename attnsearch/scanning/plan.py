"""What a scan will sample and store, worked out before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from attnsearch.devices import device_name
from attnsearch.errors import CaptionError, ConfigError, PromptError
from attnsearch.prompts import (
    MAX_PROMPTS,
    Prompt,
    check_distinct,
    coordinates_of,
    prompt_of_caption,
    read_lines,
    roles_of,
)
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning.subject import Samples, Subject
from attnsearch.store import MAX_SAMPLES, ScanLayout
from attnsearch.task.captions import grid_captions, parse
from attnsearch.task.spec import GRIDS, TaskSpec

_BLOCK_BYTES: Final = 16 * 2**20
_BLOCK_SAMPLES: Final = 64
_DEFAULT_ORDER: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanPlan:
    """One scan: every sample, and where its sketches go."""

    name: str
    """The scan's group in the store."""
    prompts: list[Prompt]
    """[sample]."""
    seeds: list[int]
    """[sample] seed of the initial noise."""
    sampler: SamplerConfig
    layout: ScanLayout
    coordinates: Mapping[str, npt.NDArray[Any]]
    attributes: Mapping[str, Any]

    def samples(self, rows: slice) -> Samples:
        """Prompts and seeds of some samples."""
        return Samples(self.prompts[rows], self.seeds[rows])


def plan_scan(
    subject: Subject,
    *,
    name: str,
    prompts: Sequence[Prompt],
    seeds: int,
    sampler: SamplerConfig,
    order: int | None = None,
    batch: int | None = None,
) -> ScanPlan:
    """Plan a scan of every prompt under seeds 0 to `seeds` - 1.

    All prompts share a seed before the next seed begins, so that a scan cut short is still
    balanced over prompts; and all prompts see the same noise, so that what differs between them
    is the text. `order` is the number of spatial frequencies kept along each axis of the image;
    by default all of them, up to 8. `batch` is the most samples that are painted at once.

    Raises:
        ConfigError: no prompts, no seeds, or an order the image does not have.
        PromptError: the prompts have more roles than a scan has room for.
    """
    for what, value in (("seeds", seeds), ("batch", 1 if batch is None else batch)):
        if value < 1:
            raise ConfigError(f"{what} must be at least 1, not {value}")
    if not prompts:
        raise ConfigError("there are no prompts to scan")
    if len(prompts) * seeds > MAX_SAMPLES:
        raise ConfigError(
            f"{len(prompts):,} prompts under {seeds:,} seeds are more than the {MAX_SAMPLES:,} "
            "samples of a scan; scan them in parts"
        )
    check_distinct(prompts)
    roles = subject.roles or roles_of(prompts)
    columns = coordinates_of(prompts)
    anatomy = subject.anatomy
    side = min(anatomy.grid)
    order = min(_DEFAULT_ORDER, side) if order is None else order
    if not 1 <= order <= side:
        raise ConfigError(f"order must lie between 1 and the {side} image tokens of a side")
    every_prompt = [prompt for _ in range(seeds) for prompt in prompts]
    every_seed = [seed for seed in range(seeds) for _ in prompts]
    branches = tuple(str(branch) for branch in subject.branches(sampler.guidance))
    sketch_bytes = (
        2 * sampler.steps * len(branches) * anatomy.layers * anatomy.heads * len(roles) * order**2
    )
    block = min(max(1, _BLOCK_BYTES // sketch_bytes), batch or _BLOCK_SAMPLES, len(every_prompt))
    schedule = subject.schedule(sampler)
    return ScanPlan(
        name=name,
        prompts=every_prompt,
        seeds=every_seed,
        sampler=sampler,
        layout=ScanLayout(
            samples=len(every_prompt),
            steps=sampler.steps,
            branches=branches,
            layers=anatomy.layers,
            heads=anatomy.heads,
            roles=roles,
            regions=subject.regions,
            scores=subject.scores,
            order=order,
            block=block,
            canvas=anatomy.canvas,
        ),
        coordinates={
            "prompt": np.array([prompt.text for prompt in every_prompt], dtype=object),
            **{key: np.array(values * seeds, dtype=object) for key, values in columns.items()},
            **subject.coordinates(every_prompt),
            "seed": np.array(every_seed, dtype=np.int64),
            "timestep": schedule.timestep,
            "noise_level": schedule.noise_level,
        },
        attributes={
            **subject.attributes(),
            "attention": str(anatomy.site),
            "grid": list(anatomy.grid),
            "keys": anatomy.keys,
            "sampler": asdict(sampler),
            "versions": {name: version(name) for name in ("attnsearch", "torch", "diffusers")},
            "device": device_name(subject.device),
        },
    )


def read_captions(source: str, task: TaskSpec) -> list[Prompt]:
    """The captions of the two-object task named on the command line, as prompts.

    One of `GRIDS` for all objects in all relations, or a text file with one caption a line.

    Raises:
        CaptionError: the file cannot be read, is larger than the limits, or a line does not follow
            the task's grammar; the message names file and line.
    """
    if source in GRIDS:
        return [prompt_of_caption(caption) for caption in grid_captions(task, GRIDS[source])]
    prompts: list[Prompt] = []
    try:
        for number, line in read_lines(Path(source)):
            if len(prompts) == MAX_PROMPTS:
                raise CaptionError(f"more than {MAX_PROMPTS:,} captions; split the file")
            prompts.append(_caption(line, f"{source}, line {number}"))
    except PromptError as error:
        raise CaptionError(str(error)) from error
    return prompts


def _caption(line: str, place: str) -> Prompt:
    try:
        return prompt_of_caption(parse(line))
    except CaptionError as error:
        raise CaptionError(f"{place}: {error}") from error
