"""Carries out a plan: sample a block, sketch its maps, judge its images, commit it.

While one block is sampled the one before it is written, by a thread of its own. So memory holds
two blocks, whatever the number of samples and however many steps they take to finish, and a kill
costs two. Batches are blocks, so a resumed scan computes what an uninterrupted one would have.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from attnsearch.capturing import SketchRecord
from attnsearch.errors import ConfigError
from attnsearch.scanning.plan import ScanPlan
from attnsearch.scanning.subject import Arrays, Pixels, Subject, Watch
from attnsearch.store import ScanLayout, ScanWriter
from attnsearch_kernels import dct2


def execute_plan(
    plan: ScanPlan,
    subject: Subject,
    store: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Run a plan into a store, from the first block that is not there yet.

    `advance` is told the number of maps done: at once those found in the store, then block by
    block, from the thread that writes.

    Raises:
        StoreError: the store cannot be written, or holds a different scan of that name.
        AttnsearchError: the weights are not usable, or sampling does not go as planned.
    """
    layout = plan.layout
    subject.prepare()
    maps_per_sample = layout.maps // layout.samples
    with (
        ScanWriter.open(store, plan.name, layout, plan.coordinates, plan.attributes) as writer,
        ThreadPoolExecutor(max_workers=1) as disk,
    ):

        def commit(index: int, arrays: Arrays) -> None:
            rows = layout.block_slice(index)
            writer.write_block(index, arrays)
            advance((rows.stop - rows.start) * maps_per_sample)

        done = min(writer.committed * layout.block, layout.samples)
        advance(done * maps_per_sample)
        last: Future[None] | None = None
        for index in range(writer.committed, layout.blocks):
            arrays = _run_block(plan, subject, layout.block_slice(index))
            if last is not None:
                last.result()  # blocks follow one another, and none follows a failed one
            last = disk.submit(commit, index, arrays)
        if last is not None:
            last.result()


def estimate_seconds(plan: ScanPlan, subject: Subject) -> float:
    """Predicted duration of a whole scan, from one block painted in two steps and in three."""
    rows = plan.layout.block_slice(0)
    subject.prepare()

    def seconds(steps: int) -> float:
        begin = perf_counter()
        subject.paint(plan.samples(rows), replace(plan.sampler, steps=steps), None)
        return perf_counter() - begin

    # Not in one step, which some pipelines take for that of a distilled model.
    two, three = (min(seconds(steps) for _ in range(2)) for steps in (2, 3))
    block = two + (plan.sampler.steps - 2) * max(three - two, 0.0)
    return block * plan.layout.samples / (rows.stop - rows.start)


def _run_block(plan: ScanPlan, subject: Subject, rows: slice) -> Arrays:
    """Every stored array for the samples of one block."""
    layout, samples = plan.layout, plan.samples(rows)
    sketches = _SketchBuffer(layout, len(samples.prompts), subject.device)
    basis = dct2(*subject.anatomy.grid, layout.order, device=subject.device)
    pixels = subject.paint(samples, plan.sampler, Watch(layout.roles, basis, sketches.add))
    arrays = sketches.arrays() | {"thumbnail": _thumbnails(pixels, layout.canvas)}
    if layout.regions or layout.scores:
        regions, scores = subject.judge(samples, pixels)
        if layout.regions:
            arrays["region_coefficients"] = regions @ basis.cpu().numpy()
        arrays |= scores
    return arrays


def _thumbnails(pixels: Pixels, canvas: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Images [sample, y, x, rgb] at the size that is stored."""
    images = np.round(pixels * 255).astype(np.uint8)
    if images.shape[1:3] == canvas:
        return images
    height, width = canvas
    small = [
        Image.fromarray(image).resize((width, height), Image.Resampling.BOX) for image in images
    ]
    return np.stack([np.asarray(image) for image in small])


class _SketchBuffer:
    """The sketches of one block, gathered on the device and moved off it once."""

    def __init__(self, layout: ScanLayout, samples: int, device: torch.device) -> None:
        self._branches = layout.branches
        self._steps = layout.steps
        self._missing = layout.steps * len(layout.branches) * layout.layers
        maps = (layout.steps, len(layout.branches), layout.layers, samples, layout.heads)
        roles, basis = len(layout.roles), layout.order**2
        self._sketch = torch.empty(*maps, roles, basis, dtype=torch.float16, device=device)
        self._energy = torch.empty(*maps, roles, device=device)
        self._entropy = torch.empty(*maps, device=device)
        self._peak = torch.empty(*maps, device=device)

    def add(self, record: SketchRecord) -> None:
        if record.step >= self._steps:
            raise ConfigError(
                f"the model is called more often than {self._steps} times; "
                "choose a scheduler that calls it once a step"
            )
        self._missing -= 1
        at = (record.step, self._branches.index(record.branch), record.layer)
        self._sketch[at] = record.sketch
        self._energy[at] = record.energy
        self._entropy[at] = record.entropy
        self._peak[at] = record.peak

    def arrays(self) -> Arrays:
        """With the sample axis first, as stored."""
        if self._missing:
            raise ConfigError(f"the model was called less often than {self._steps} times")
        named = {
            "sketch": self._sketch,
            "energy": self._energy,
            "entropy": self._entropy,
            "peak": self._peak,
        }
        return {
            name: np.ascontiguousarray(np.moveaxis(tensor.cpu().numpy(), 3, 0))
            for name, tensor in named.items()
        }
