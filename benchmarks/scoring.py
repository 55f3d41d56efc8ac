"""How often is the scorer right about perfectly rendered scenes, and how fast is it?

Scenes come from the training distribution of each preset; the scorer is right when all six of
its scores are true of the scene's own caption. An object that shows less than the scorer's
smallest area cannot be found, so scenes are also counted without those. Run as
`python benchmarks/scoring.py`.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.stats import binomtest

from attnsearch.axes import RELATIONS
from attnsearch.task.captions import compose
from attnsearch.task.scenes import Scenes, coverage, draw_scenes, render
from attnsearch.task.scoring import MIN_AREA, score_images
from attnsearch.task.spec import OBJECT_PAIRS, PHRASES, PRESETS, SHAPES, TaskSpec
from attnsearch_kernels.machine import describe_machine

MEASURES = ("shape", "colour", "exist_binding", "binding", "relation_strict", "relation_loose")
BLUR_PX, NOISE = 0.5, 0.05
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How often all six scores are true in one selection of scenes."""

    preset: str
    images: str
    scenes: str
    count: int
    right: int
    rate: float
    low: float
    """Wilson 95 % interval, as is `high`."""
    high: float


def row(preset: str, images: str, scenes: str, right: Bools) -> Row:
    """The rate of a selection with its interval."""
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
    return Row(
        preset=preset,
        images=images,
        scenes=scenes,
        count=len(right),
        right=int(right.sum()),
        rate=round(float(right.mean()), 5),
        low=round(float(interval.low), 5),
        high=round(float(interval.high), 5),
    )


def selections(spec: TaskSpec, scenes: Scenes) -> dict[str, Bools]:
    """Which scenes each row counts."""
    offset = (scenes.centre[:, 0] - scenes.centre[:, 1]).abs()
    disjoint = (offset >= 2 * spec.radius).any(dim=1).numpy()
    shape = [[SHAPES.index(shape) for _, shape in OBJECT_PAIRS[pair]] for pair in scenes.pair]
    cover = coverage(
        torch.tensor(shape).flatten(), scenes.centre.flatten(0, 1), spec.radius, spec.canvas
    ).unflatten(0, (-1, 2))
    visible = (cover[:, 0] * (1 - cover[:, 1])).sum(dim=(1, 2)).numpy()
    return {
        "boxes disjoint": disjoint,
        "boxes overlap": ~disjoint,
        "as drawn": np.ones_like(disjoint),
        "as drawn, object 1 visible enough": visible >= MIN_AREA * spec.radius**2,
    }


def measure(preset: str, count: int) -> tuple[list[Row], float]:
    """All rows of a preset, and the milliseconds one image takes."""
    spec = PRESETS[preset]
    scenes = draw_scenes(spec, count, torch.Generator().manual_seed(0))
    clean = ((render(spec, scenes) + 1) / 2).permute(0, 2, 3, 1).numpy()
    noise = np.random.default_rng(0).normal(0, NOISE, clean.shape)
    rough = (ndimage.gaussian_filter(clean, (0, BLUR_PX, BLUR_PX, 0)) + noise).clip(0, 1)
    captions = [
        compose(pair, RELATIONS[relation], PHRASES[RELATIONS[relation]][0])
        for pair, relation in zip(scenes.pair.tolist(), scenes.relation.tolist(), strict=True)
    ]
    rows = []
    start = perf_counter()
    for name, images in {"clean": clean, "blur and noise": rough.astype(np.float32)}.items():
        scores = score_images(images, captions, spec)
        right = np.array([all(getattr(score, each) for each in MEASURES) for score in scores])
        for selection, chosen in selections(spec, scenes).items():
            rows.append(row(preset, name, selection, right[chosen]))
    return rows, 1e3 * (perf_counter() - start) / (2 * count)


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=5000, help="scenes of the small preset")
    parser.add_argument("--paper", type=int, default=2000, help="scenes of the paper preset")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "scoring.json",
        help="where the results are written",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    speed = {}
    for preset in PRESETS:
        measured, speed[preset] = measure(preset, getattr(options, preset))
        rows += measured
    columns = "{:7} {:15} {:34} {:>6} {:>7}  {}"
    print(columns.format("preset", "images", "scenes", "n", "right", "95 % interval"))
    for each in rows:
        interval = f"{each.low:.4f} to {each.high:.4f}"
        print(
            columns.format(
                each.preset, each.images, each.scenes, each.count, f"{each.rate:.4f}", interval
            )
        )
    for preset, milliseconds in speed.items():
        print(f"{preset}: {milliseconds:.1f} ms per image on one core")
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "threads": 1,
        "blur_px": BLUR_PX,
        "noise": NOISE,
        "ms_per_image": {preset: round(value, 2) for preset, value in speed.items()},
        "rows": [asdict(each) for each in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
