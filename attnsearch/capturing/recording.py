"""What was seen of a pipeline's calls, kept in memory and handed out as a scan.

Sketches leave the device after every forward pass, in float16; no map and no image is kept. What
watches the pipeline is in `live`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from attnsearch.axes import HEAD, LAYER, SAMPLE, STEP, Branch
from attnsearch.capturing.recorder import SketchRecord
from attnsearch.capturing.regions import Regions, pool_regions
from attnsearch.errors import ConfigError
from attnsearch.models.families import ForwardPass
from attnsearch.prompts import Prompt, coordinates_of, roles_of
from attnsearch.store import COORDINATES, FLAGGED_SAMPLES, ScanLayout
from attnsearch_kernels import dct2

Arrays = dict[str, npt.NDArray[Any]]

_STORED: Final = {
    "sketch": torch.float16,
    "energy": torch.float32,
    "entropy": torch.float32,
    "peak": torch.float32,
}
"""Arrays of a record, in the types of a store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """What a call of the pipeline is about to run."""

    grid: tuple[int, int]
    timestep: npt.NDArray[np.float32]
    """[step], in [0, 1000]."""
    noise_level: npt.NDArray[np.float32]
    """[step] share of noise, in [0, 1]."""


@dataclass(slots=True)
class _Call:
    """One call: its finished forward passes, and the records of the running one."""

    plan: CallPlan
    finished: set[tuple[int, Branch]] = field(default_factory=set)
    running: list[SketchRecord] = field(default_factory=list)
    heads: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    stored: dict[tuple[int, Branch], dict[str, Tensor]] = field(default_factory=dict)
    """By step and branch: arrays [layer, sample, head, ...]."""

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Those of its first step."""
        both = (Branch.UNCOND, Branch.COND)
        return tuple(branch for branch in both if (0, branch) in self.finished)

    @property
    def complete(self) -> bool:
        """Whether its last step was finished too."""
        last = len(self.plan.timestep) - 1
        return bool(self.branches) and self.finished >= {(last, each) for each in self.branches}


class Recording:
    """The sketches of every call of a pipeline inside a `with` block of `capture`."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        images_per_prompt: int,
        order: int | None,
        pipe: Any,
        denoiser: nn.Module,
    ) -> None:
        """`order` is the number of frequencies a side, None for all, up to 8.

        `denoiser` is the part of `pipe` that is watched.

        Raises:
            PromptError: the prompts have more roles than a scan has room for.
        """
        self.prompts = tuple(prompts)
        """What the pipeline is to be called with, in order."""
        self.samples = [prompt for prompt in prompts for _ in range(images_per_prompt)]
        """The prompt of each image of one call."""
        self.roles = roles_of(prompts)
        self._images_per_prompt = images_per_prompt
        self._order = order
        self._pipe = pipe
        self._denoiser = denoiser
        self._calls: list[_Call] = []

    def begin(self, plan: CallPlan) -> None:
        """A call begins.

        Raises:
            ConfigError: it does not run what the calls before it ran.
        """
        self._drop_cut_short()
        if self._calls:
            first = self._calls[0].plan
            if plan.grid != first.grid:
                raise ConfigError(
                    f"this call paints {_product(plan.grid)} image tokens, the one before it "
                    f"{_product(first.grid)}; capture them apart"
                )
            if not np.array_equal(plan.timestep, first.timestep):
                raise ConfigError(
                    f"this call takes {len(plan.timestep)} steps at other times than the "
                    f"{len(first.timestep)} steps of the one before it; capture them apart"
                )
        self._calls.append(_Call(plan))

    def add(self, record: SketchRecord) -> None:
        """Keep a record of the running forward pass."""
        self._calls[-1].running.append(record)

    def finish(self, running: ForwardPass) -> None:
        """A forward pass is over: its sketches leave the device."""
        call = self._calls[-1]
        for branch, _ in running.branches:
            call.finished.add((running.step, branch))
            records = [record for record in call.running if record.branch == branch]
            if records:
                call.layers = tuple(record.layer for record in records)
                call.heads = records[0].heads
                call.stored[running.step, branch] = {
                    name: torch.stack(
                        [getattr(record, name).detach().to(dtype) for record in records]
                    ).cpu()
                    for name, dtype in _STORED.items()
                }
        call.running.clear()

    def scan(
        self, *, images: Sequence[Any] | None = None, regions: Regions | None = None
    ) -> xr.Dataset:
        """All calls so far as a scan, in memory: what `open_scan` gives, without thumbnails.

        Samples are the images in the order in which they were made; `seed` counts the images of a
        prompt. A call that was cut short is left out, and so is a sample of which a number is not
        finite; attribute `flagged_samples` counts those. `regions` (see `regions.Regions`) says
        where objects are in `images`, which are those of all calls, PIL or [y, x, rgb] in
        [0, 1]; templates such as `object1 -> relation` need it.

        Raises:
            ConfigError: nothing was recorded, calls differ in their branches, no sample is finite,
                or regions and images do not fit the samples.
        """
        self._drop_cut_short()
        if not self._calls:
            raise ConfigError(
                "no call of the pipeline was finished in the `with` block; call it there with "
                "[prompt.text for prompt in prompts]"
            )
        if any(call.stored.keys() != self._calls[0].stored.keys() for call in self._calls):
            raise ConfigError("calls with and without guidance are no one scan; capture them apart")
        if not self._calls[0].stored:
            raise ConfigError("the selection leaves nothing to record")
        arrays = self._arrays()
        flagged = ~np.logical_and.reduce(
            [np.isfinite(values).reshape(len(values), -1).all(axis=1) for values in arrays.values()]
        )
        if flagged.all():
            raise ConfigError("no sample is finite: the attention of the model is broken")
        names: tuple[str, ...] = ()
        if regions is not None:
            samples = self.samples * len(self._calls)
            names, weights = pool_regions(regions, images, samples, self._calls[0].plan.grid)
            coefficients = weights @ self.basis(torch.device("cpu")).double().numpy()
            arrays["region_coefficients"] = coefficients.astype(np.float32)
        elif images is not None:
            raise ConfigError("images are looked at to find regions; give regions= too")
        dataset = self._dataset(arrays, names)
        dataset.attrs[FLAGGED_SAMPLES] = int(flagged.sum())
        return dataset.isel({SAMPLE: ~flagged}) if flagged.any() else dataset

    def basis(self, device: torch.device) -> Tensor:
        """Phi [image token, basis] of the calls recorded.

        Raises:
            ConfigError: the order is not one of their grid.
        """
        grid = self._calls[0].plan.grid
        order = min(8, *grid) if self._order is None else self._order
        if not 1 <= order <= min(grid):
            raise ConfigError(
                f"order {order} does not lie between 1 and {min(grid)}, the shorter side of the "
                f"{_product(grid)} image tokens"
            )
        return dct2(*grid, order, device=device)

    def _drop_cut_short(self) -> None:
        if self._calls and not self._calls[-1].complete:
            del self._calls[-1]

    def _arrays(self) -> Arrays:
        """Sample axis first, as stored."""
        call = self._calls[0]
        steps, branches = _axes(call)
        rows = len(self.samples)
        arrays: Arrays = {}
        for name, example in next(iter(call.stored.values())).items():
            layers, _, *rest = example.shape
            shape = (rows * len(self._calls), len(steps), len(branches), layers, *rest)
            arrays[name] = np.empty(shape, dtype=example.numpy().dtype)
        for number, call in enumerate(self._calls):
            of_call = slice(number * rows, (number + 1) * rows)
            for (step, branch), tensors in call.stored.items():
                for name, tensor in tensors.items():
                    at = (of_call, steps.index(step), branches.index(branch))
                    arrays[name][at] = tensor.transpose(0, 1).numpy()
        return arrays

    def _dataset(self, arrays: Arrays, regions: tuple[str, ...]) -> xr.Dataset:
        call = self._calls[0]
        steps, branches = _axes(call)
        layout = ScanLayout(
            samples=len(arrays["sketch"]),
            steps=len(steps),
            branches=tuple(str(branch) for branch in branches),
            layers=len(call.layers),
            heads=len(call.heads),
            roles=self.roles,
            regions=regions,
            scores=(),
            order=round(arrays["sketch"].shape[-1] ** 0.5),
            block=len(self.samples),
            canvas=call.plan.grid,
        )
        long_names = {spec.name: spec.long_name for spec in COORDINATES}
        coordinates = {
            name: (dimension, values, {"long_name": long_names[name]} if name in long_names else {})
            for name, (dimension, values) in layout.coordinates(self._columns(steps)).items()
        }
        chosen = {STEP: list(steps), LAYER: list(call.layers), HEAD: list(call.heads)}
        return xr.Dataset(
            {
                spec.name: (spec.dimensions, arrays[spec.name], spec.attributes)
                for spec in layout.arrays()
                if spec.name in arrays
            },
            coordinates,
            self._attributes(call.plan),
        ).assign_coords(chosen)

    def _columns(self, steps: tuple[int, ...]) -> Mapping[str, npt.NDArray[Any]]:
        calls, plan = len(self._calls), self._calls[0].plan
        texts = {"prompt": [prompt.text for prompt in self.samples], **coordinates_of(self.samples)}
        seed = np.arange(calls)[:, None, None] * self._images_per_prompt
        seed = seed + np.arange(self._images_per_prompt)
        return {
            **{name: np.array(column * calls, dtype=object) for name, column in texts.items()},
            "seed": np.broadcast_to(
                seed, (calls, len(self.prompts), self._images_per_prompt)
            ).ravel(),
            "timestep": plan.timestep[list(steps)],
            "noise_level": plan.noise_level[list(steps)],
        }

    def _attributes(self, plan: CallPlan) -> dict[str, Any]:
        return {
            "pipeline": type(self._pipe).__name__,
            "transformer": type(self._denoiser).__name__,
            "scheduler": type(self._pipe.scheduler).__name__,
            "grid": list(plan.grid),
            "versions": {name: version(name) for name in ("attnsearch", "torch", "diffusers")},
        }


def _axes(call: _Call) -> tuple[tuple[int, ...], tuple[Branch, ...]]:
    """The steps and branches that were recorded, in order."""
    steps = sorted({step for step, _ in call.stored})
    recorded = {branch for _, branch in call.stored}
    return tuple(steps), tuple(branch for branch in call.branches if branch in recorded)


def _product(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))
