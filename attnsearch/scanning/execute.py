"""Carries out a plan: sample a block, sketch its maps, score its images, commit it.

While one block is sampled the one before it is written, by a thread of its own. So memory holds
two blocks, whatever the number of samples and however many steps they take to finish, and a kill
costs two. Batches are blocks, so a resumed scan computes what an uninterrupted one would have.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attnsearch import encoders
from attnsearch.capturing import SketchRecord, capture
from attnsearch.encoders import EncodedText
from attnsearch.models import Checkpoint, DiT, load_checkpoint
from attnsearch.models.guidance import Conditioning, guided_prediction
from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample, to_pixels
from attnsearch.scanning.plan import ScanPlan, device_name, plan_scan, read_prompts, scan_name
from attnsearch.store import ScanLayout, ScanWriter
from attnsearch.task.scoring import ImageScore, pool_to_grid, region_weights, score_caption
from attnsearch_kernels import dct2

Arrays = dict[str, npt.NDArray[Any]]


def scan(
    checkpoint: Path,
    store: Path,
    *,
    name: str | None = None,
    prompts: str = "grid",
    seeds: int = 4,
    sampler: SamplerConfig | None = None,
    device: torch.device | None = None,
) -> None:
    """Sample a checkpoint and keep a sketch of every cross-attention map in a store.

    `prompts` is `grid`, or a text file with one caption a line; each is painted under seeds 0 to
    `seeds` - 1. Called again after an interruption, it goes on where it stopped.

    Raises:
        AttnsearchError: the checkpoint, the prompts or the store are not usable.
    """
    loaded = load_checkpoint(checkpoint)
    target = device or torch.device("cpu")
    plan = plan_scan(
        loaded,
        name=name or scan_name(checkpoint),
        captions=read_prompts(prompts, loaded.task),
        seeds=seeds,
        sampler=sampler or SamplerConfig(),
        device=device_name(target),
    )
    execute_plan(plan, loaded, store, target)


def execute_plan(
    plan: ScanPlan,
    checkpoint: Checkpoint,
    store: Path,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Run a plan into a store, from the first block that is not there yet.

    `advance` is told the number of maps done: at once those found in the store, then block by
    block, from the thread that writes.

    Raises:
        StoreError: the store cannot be written, or holds a different scan of that name.
        CheckpointError: the weights are not usable.
    """
    layout = plan.layout
    block_of = _BlockRunner(plan, checkpoint, device)
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
            arrays = block_of.run(layout.block_slice(index))
            if last is not None:
                last.result()  # blocks follow one another, and none follows a failed one
            last = disk.submit(commit, index, arrays)
        if last is not None:
            last.result()


def estimate_seconds(plan: ScanPlan, checkpoint: Checkpoint, device: torch.device) -> float:
    """Predicted duration of a whole scan, from one timed call of the network on one block."""
    runner = _BlockRunner(plan, checkpoint, device)
    rows = plan.layout.block_slice(0)
    text, noise = runner.inputs(rows)
    conditioning = Conditioning.from_text(text, device)
    level = float(plan.coordinates["timestep"][0])
    seconds = []
    for _ in range(3):
        begin = perf_counter()
        with torch.no_grad():
            prediction = guided_prediction(
                runner.model, noise, level, conditioning, plan.sampler.guidance
            )
        float(prediction.sum())  # waits for an asynchronous device
        seconds.append(perf_counter() - begin)
    return min(seconds) * plan.sampler.steps * plan.layout.samples / len(noise)


class _BlockRunner:
    """Samples and sketches one block at a time."""

    def __init__(self, plan: ScanPlan, checkpoint: Checkpoint, device: torch.device) -> None:
        self.plan = plan
        self.device = device
        self.task = checkpoint.task
        self.objective = checkpoint.objective
        self.model: DiT = checkpoint.build().to(device)
        self.encoder = encoders.build(checkpoint.encoder)
        grid = checkpoint.model.grid
        self.basis = dct2(grid, grid, plan.layout.order, device=device)

    def inputs(self, rows: slice) -> tuple[EncodedText, Tensor]:
        """Encoded captions, and initial noise on the device, of some samples."""
        noise = noise_of_seeds(self.plan.seeds[rows], self.model)
        return self.encoder.encode(self.plan.captions[rows]), noise.to(self.device)

    def run(self, rows: slice) -> Arrays:
        """Every stored array for the samples of one block."""
        captions = self.plan.captions[rows]
        text, noise = self.inputs(rows)
        conditioning = Conditioning.from_text(text, self.device)
        roles = text.roles.to(self.device)
        sketches = _SketchBuffer(self.plan.layout, len(captions), self.device)
        with capture(self.model, roles=roles, basis=self.basis, sink=sketches.add):
            images = sample(self.model, self.objective, conditioning, noise, self.plan.sampler)
        pixels = to_pixels(images)
        scores = [
            score_caption(image, caption, self.task)
            for image, caption in zip(pixels, captions, strict=True)
        ]
        return {
            **sketches.arrays(),
            **self._outcomes(scores),
            "thumbnail": np.round(pixels * 255).astype(np.uint8),
        }

    def _outcomes(self, scores: Sequence[ImageScore]) -> Arrays:
        layout = self.plan.layout
        region = np.full(
            (len(scores), len(layout.regions), layout.order**2), np.nan, dtype=np.float32
        )
        basis = self.basis.cpu().numpy()
        for row, score in enumerate(scores):
            if score.binding:
                weights = region_weights(score, self.task)
                region[row] = pool_to_grid(weights, self.model.config.patch) @ basis
        names = ("shape", "colour", "binding", "relation_strict", "relation_loose")
        return {
            "region_coefficients": region,
            **{
                f"score_{name}": np.array([getattr(score, name) for score in scores], dtype=bool)
                for name in names
            },
        }


class _SketchBuffer:
    """The sketches of one block, gathered on the device and moved off it once."""

    def __init__(self, layout: ScanLayout, samples: int, device: torch.device) -> None:
        self._branches = layout.branches
        maps = (layout.steps, len(layout.branches), layout.layers, samples, layout.heads)
        roles, basis = len(layout.roles), layout.order**2
        self._sketch = torch.empty(*maps, roles, basis, dtype=torch.float16, device=device)
        self._energy = torch.empty(*maps, roles, device=device)
        self._entropy = torch.empty(*maps, device=device)
        self._peak = torch.empty(*maps, device=device)

    def add(self, record: SketchRecord) -> None:
        at = (record.step, self._branches.index(record.branch), record.layer)
        self._sketch[at] = record.sketch
        self._energy[at] = record.energy
        self._entropy[at] = record.entropy
        self._peak[at] = record.peak

    def arrays(self) -> Arrays:
        """With the sample axis first, as stored."""
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
