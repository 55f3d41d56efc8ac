"""From the samples of a block to its arrays: paint, sketch, judge; in fewer at once if need be.

Nothing here knows a disk. A sample of which any number is not finite is flagged here, and the
others of its block are as they would be without it.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from attnsearch.capturing import SketchRecord
from attnsearch.errors import ConfigError
from attnsearch.scanning.memory import is_out_of_memory
from attnsearch.scanning.plan import ScanPlan
from attnsearch.scanning.subject import Arrays, Pixels, Subject, Watch
from attnsearch.store import FLAGGED, ScanLayout
from attnsearch_kernels import dct2


class Painter:
    """Paints blocks of a plan.

    Where the device has no memory for all samples of a block at once, they are painted in halves,
    and so on, provided that this changes no bit of the first block that was painted whole: a scan
    is continued by whoever comes and must not depend on the memory that was free. Where none was
    whole there is nothing to compare with; that two smaller parts agree does not tell.
    """

    def __init__(self, plan: ScanPlan, subject: Subject, news: Callable[[str], None]) -> None:
        """`news` is told when fewer samples are painted at once."""
        self._plan = plan
        self._subject = subject
        self._news = news
        self._most = plan.layout.block
        self._whole: tuple[slice, bytes] | None = None
        """The first block, painted whole, and the digest of its arrays."""

    def paint(self, rows: slice) -> Arrays:
        """Every stored array for some samples.

        Raises:
            ConfigError: there is no memory for them, and painting fewer at once changes the result,
                or may; or the model is not called once a step.
        """
        while True:
            painted = self._paint_in(rows, self._most)
            if painted is None:
                self._most = self._fewer(min(rows.stop - rows.start, self._most))
                continue
            if self._whole is None and rows.stop - rows.start == self._plan.layout.block:
                self._whole = rows, _digest(painted)
            return painted

    def _fewer(self, count: int) -> int:
        """How many samples to paint at once where there is no memory for these."""
        if count == 1:
            raise ConfigError(
                "the device has no memory for one sample; take another --device or a smaller --size"
            )
        half = -(-count // 2)
        halved = None if self._whole is None else self._paint_in(self._whole[0], half)
        if self._whole is not None and halved is None:
            return self._fewer(half)
        if self._whole is None or halved is None or _digest(halved) != self._whole[1]:
            raise ConfigError(
                f"the device has no memory for {count} samples at once, and with fewer their last "
                f"bits may be others; free its memory, or scan with --batch {half} under "
                "another --name"
            )
        self._news(f"no memory for {count} samples at once; painting {half}")
        return half

    def _paint_in(self, rows: slice, most: int) -> Arrays | None:
        """Paint samples, so many at once at most; None where there is no memory for that."""
        starts = range(rows.start, rows.stop, most)
        try:
            pieces = [
                _paint(self._plan, self._subject, slice(start, min(start + most, rows.stop)))
                for start in starts
            ]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        # Not while the error is handled: until then it holds on to what was allocated.
        if self._subject.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


def _digest(arrays: Arrays) -> bytes:
    digest = sha256()
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.digest()


def _paint(plan: ScanPlan, subject: Subject, rows: slice) -> Arrays:
    """Every stored array for samples that are painted together."""
    layout, samples = plan.layout, plan.samples(rows)
    sketches = _SketchBuffer(layout, len(samples.prompts), subject.device)
    basis = dct2(*subject.anatomy.grid, layout.order, device=subject.device)
    pixels = subject.paint(samples, plan.sampler, Watch(layout.roles, basis, sketches.add))
    arrays = sketches.arrays()
    flagged = ~np.logical_and.reduce([_finite(values) for values in (*arrays.values(), pixels)])
    pixels = np.nan_to_num(pixels, nan=0.0, posinf=0.0, neginf=0.0)
    arrays |= {"thumbnail": _thumbnails(pixels, layout.canvas), FLAGGED: flagged}
    if layout.regions or layout.scores:
        regions, scores = subject.judge(samples, pixels)
        if layout.regions:
            arrays["region_coefficients"] = regions @ basis.cpu().numpy()
        arrays |= {name: outcome & ~flagged for name, outcome in scores.items()}
    return arrays


def _finite(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """Whether all numbers of a sample are, [sample]."""
    return np.isfinite(values).reshape(len(values), -1).all(axis=1)


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
