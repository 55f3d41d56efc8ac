"""What does a scan add to the sampling it rides on, and to keeping every map instead?

All variants sample the same images in the same batches, taking turns in one process:

- sampling: the images, nothing else;
- capture: every map becomes a sketch, and the sketch is dropped;
- scan: the sketches, scores, regions and thumbnails are in a durable store at the end;
- keep every map: attention is materialised, every map is kept in float32 and saved with
  `torch.save` at the end, which does not wait for the disk as a scan does. Maps are stacked block
  by block, which is kinder to its memory than stacking them all at the end.

Scoring the finished images is part of a scan but has nothing to do with attention, so it is timed
by itself too. A scan writes one block from a second thread while it samples the next, so with a
core to spare its wall time hides what writing costs; processor time, printed beside it, does not.
Peak memory is measured in a fresh process per variant. What a scan stores is checked against the
kept maps before anything is timed. Run as `python benchmarks/scan.py`.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
import numpy.typing as npt
import torch
from _memory import in_fresh_process, peak_growth
from _workload import CPU, ZOO_CHECKPOINT, Workload, versions
from torch import Tensor

from attnsearch import encoders
from attnsearch.axes import Site
from attnsearch.capturing import capture
from attnsearch.models import AttentionCall, DiT, plain_attention
from attnsearch.models.attention import AttendFunction
from attnsearch.models.guidance import Conditioning
from attnsearch.sampling import noise_of_seeds, sample, to_pixels
from attnsearch.store import open_scan
from attnsearch.task.scoring import score_caption
from attnsearch_kernels import dct2
from attnsearch_kernels.machine import describe_machine

Variant = Callable[[Workload, Path], object]
Seconds = npt.NDArray[np.float64]

SAMPLING = "sampling"
SCORING = "scoring alone"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The samples of one batch; all variants use those of the scan."""

    conditioning: Conditioning
    noise: Tensor
    roles: Tensor


def blocks(work: Workload, model: DiT) -> Iterator[Block]:
    """Every block of a workload, in order."""
    layout = work.plan.layout
    encoder = encoders.build(work.checkpoint.encoder)
    for rows in map(layout.block_slice, range(layout.blocks)):
        text = encoder.encode(work.captions[rows])
        noise = noise_of_seeds(work.plan.seeds[rows], model)
        yield Block(Conditioning.from_text(text, CPU), noise, text.roles)


def paint(work: Workload, model: DiT, block: Block) -> Tensor:
    """The images [sample, channel, y, x] of a block."""
    sampler = work.plan.sampler
    return sample(model, work.checkpoint.objective, block.conditioning, block.noise, sampler)


def sampling(work: Workload, folder: Path) -> Tensor:
    """The images alone."""
    del folder
    model = work.checkpoint.build()
    return torch.cat([paint(work, model, block) for block in blocks(work, model)])


def sampling_and_capture(work: Workload, folder: Path) -> Tensor:
    """The images; every map is sketched, no sketch is kept."""
    del folder
    model = work.checkpoint.build()
    grid = work.checkpoint.model.grid
    basis = dct2(grid, grid, work.plan.layout.order)
    images = []
    for block in blocks(work, model):
        with capture(model, roles=block.roles, basis=basis, sink=lambda _: None):
            images.append(paint(work, model, block))
    return torch.cat(images)


def sampling_and_scan(work: Workload, folder: Path) -> None:
    """The real thing."""
    work.scan(folder)


def sampling_and_every_map(work: Workload, folder: Path) -> Tensor:
    """The images, and every map in a file."""
    model = work.checkpoint.build()
    images, kept = [], []
    for block in blocks(work, model):
        maps: list[Tensor] = []
        with every_map_into(maps, model):
            images.append(paint(work, model, block))
        kept.append(torch.stack(maps))
    torch.save(kept, folder / "maps.pt")
    return torch.cat(images)


VARIANTS: dict[str, Variant] = {
    SAMPLING: sampling,
    "sampling + capture": sampling_and_capture,
    "sampling + scan": sampling_and_scan,
    "sampling + keep every map": sampling_and_every_map,
}


@contextmanager
def every_map_into(maps: list[Tensor], model: DiT) -> Iterator[None]:
    """Attention that materialises its map [row, head, query, key] and appends it to a list."""
    modules = model.attention_modules(Site.CROSS)
    for module in modules:
        module.attend = keeping(maps)
    try:
        yield
    finally:
        for module in modules:
            module.attend = plain_attention


def keeping(maps: list[Tensor]) -> AttendFunction:
    """Attention as everyone writes it who wants to see its map."""

    def attend(call: AttentionCall) -> Tensor:
        logits = call.query @ call.key.mT * call.scale
        if call.key_mask is not None:
            logits = logits.masked_fill(~call.key_mask[:, None, None], float("-inf"))
        attention = logits.softmax(-1)
        maps.append(attention.float().cpu())
        return attention @ call.value

    return attend


def check(work: Workload) -> dict[str, float]:
    """Largest differences between the variants on a small workload; refuses wrong results."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = sampling(work, folder)
        captured = sampling_and_capture(work, folder)
        kept = sampling_and_every_map(work, folder)
        work.scan(folder)
        stored = open_scan(folder / "benchmark.zarr", "benchmark")["sketch"].to_numpy()
        (maps,) = torch.load(folder / "maps.pt")
    layout = work.plan.layout
    (block,) = blocks(work, work.checkpoint.build())
    rows = (layout.steps, layout.layers, len(layout.branches), layout.samples)
    grid = work.checkpoint.model.grid
    expected = torch.einsum(
        "tlbshqk,skg,qf->stblhgf", maps.unflatten(0, rows[:2]).unflatten(2, rows[2:]),
        block.roles, dct2(grid, grid, layout.order),
    )  # fmt: skip
    differences = {
        "image, captured": float((captured - images).abs().max()),
        "image, every map kept": float((kept - images).abs().max()),
        "stored sketch, of kept maps": float((torch.from_numpy(stored) - expected).abs().max()),
    }
    if max(differences.values()) > 0.01:  # float16 holds a sketch of 64 tokens to 0.004
        raise SystemExit(f"the variants do not agree: {differences}")
    return {name: float(f"{value:.2g}") for name, value in differences.items()}


def time_interleaved(work: Workload, rounds: int) -> dict[str, tuple[Seconds, Seconds]]:
    """Wall and processor seconds [round] of every variant, and of scoring, taking turns."""
    pixels = to_pixels(sampling(work, Path()))

    def scoring(work: Workload, folder: Path) -> None:
        del folder
        for image, caption in zip(pixels, work.captions, strict=True):
            score_caption(image, caption, work.checkpoint.task)

    timed = VARIANTS | {SCORING: scoring}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for turn in range(rounds):
        # The other way round every second time, so that no variant always follows the same one.
        for name in list(timed)[:: 1 if turn % 2 == 0 else -1]:
            with TemporaryDirectory() as folder:
                wall, processor = perf_counter(), process_time()
                timed[name](work, Path(folder))
                seconds[name].append((perf_counter() - wall, process_time() - processor))
        print(f"round {turn + 1} of {rounds} done", flush=True)
    columns = {name: np.array(pairs).T for name, pairs in seconds.items()}
    return {name: (wall, processor) for name, (wall, processor) in columns.items()}


def footprint(checkpoint: Path, name: str, seeds: int, steps: int, threads: int) -> tuple[int, int]:
    """Growth of peak memory and bytes on disk of one variant, in bytes; for a fresh process."""
    torch.set_num_threads(threads)
    work = Workload.load(checkpoint, seeds=seeds, steps=steps)
    variant = VARIANTS[name]
    with TemporaryDirectory() as folder:
        variant(work.warm_up(), Path(folder))
    with TemporaryDirectory() as folder:
        growth = peak_growth(lambda: variant(work, Path(folder)))
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return growth, disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds over the rounds, or their ratio to sampling in the same round."""

    median: float
    p20: float
    """20 % of the rounds are below."""
    p80: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The results of one variant."""

    variant: str
    n: int
    """Rounds."""
    seconds: Timing
    processor_seconds: Timing
    over_sampling: Timing
    processor_over_sampling: Timing
    peak_memory_growth_bytes: int | None
    """None for scoring alone, which is measured as a part of the scan."""
    disk_bytes: int | None
    maps: int
    """Attention maps this variant recorded."""


def summary(values: Seconds) -> Timing:
    """Median and spread."""
    p20, median, p80 = (round(float(v), 4) for v in np.quantile(values, [0.2, 0.5, 0.8]))
    return Timing(median=median, p20=p20, p80=p80)


def rows_of(
    seconds: dict[str, tuple[Seconds, Seconds]],
    footprints: dict[str, tuple[int, int]],
    maps: int,
) -> list[Row]:
    """One row a variant."""
    base_wall, base_processor = seconds[SAMPLING]
    rows = []
    for name, (wall, processor) in seconds.items():
        memory, disk = footprints.get(name, (None, None))
        rows.append(
            Row(
                variant=name,
                n=len(wall),
                seconds=summary(wall),
                processor_seconds=summary(processor),
                over_sampling=summary(wall / base_wall),
                processor_over_sampling=summary(processor / base_processor),
                peak_memory_growth_bytes=memory,
                disk_bytes=disk,
                maps=0 if name in (SAMPLING, SCORING) else maps,
            )
        )
    return rows


def report(rows: list[Row], work: Workload) -> None:
    """The table: medians over the rounds, the ratio with its 20 % and 80 % points."""
    layout = work.plan.layout
    print(
        f"\n{layout.samples} images, {layout.steps} steps, {layout.maps:,} maps, on CPU with "
        f"{torch.get_num_threads()} thread; median of {rows[0].n} rounds"
    )
    columns = "{:26} {:>8} {:>8} {:>18} {:>9} {:>9} {:>9}"
    print(
        columns.format("variant", "seconds", "CPU s", "x sampling", "CPU x", "peak MiB", "disk MiB")
    )
    for row in rows:
        ratio = row.over_sampling
        sizes = (
            "" if size is None else f"{size / 2**20:.0f}"
            for size in (row.peak_memory_growth_bytes, row.disk_bytes)
        )
        print(
            columns.format(
                row.variant,
                f"{row.seconds.median:.2f}",
                f"{row.processor_seconds.median:.2f}",
                f"{ratio.median:.3f} ({ratio.p20:.2f}-{ratio.p80:.2f})",
                f"{row.processor_over_sampling.median:.3f}",
                *sizes,
            )
        )


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=ZOO_CHECKPOINT)
    parser.add_argument("--seeds", type=int, default=1, help="images per prompt of the grid")
    parser.add_argument("--steps", type=int, default=14, help="sampler steps per image")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of every variant")
    parser.add_argument("--threads", type=int, default=1, help="threads torch may use")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results" / "scan-cpu.json",
        help="where the results are written",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = Workload.load(options.checkpoint, seeds=options.seeds, steps=options.steps)
    differences = check(work.warm_up())
    footprints = {
        name: in_fresh_process(
            footprint, options.checkpoint, name, options.seeds, options.steps, options.threads
        )
        for name in VARIANTS
    }
    rows = rows_of(time_interleaved(work, options.rounds), footprints, work.plan.layout.maps)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "versions": versions(),
        "settings": {
            "checkpoint": options.checkpoint.name,
            "threads": options.threads,
            "seeds": options.seeds,
            **work.describe(),
        },
        "largest_differences": differences,
        "rows": [asdict(row) for row in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    report(rows, work)


if __name__ == "__main__":
    main()
