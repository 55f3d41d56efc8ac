"""The rows of `models.py`, its table, and what to know when reading it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from textwrap import fill
from typing import Final, Self

from _models_pipeline import TOP, Size

NOTES: Final = (
    "Times are of processors, of sampling; 'write' is extra, save for a scan, which has written "
    "by the time its sampling ends. With 20 text tokens a map is small beside the rest of the "
    "model: at this size memory, disk and what can be asked tell variants apart, not time.",
    "attention-map-diffusers keeps by default the mean over heads of the last step; its rows "
    "'exact' and 'fast' ask for all heads and all steps (heads='all', timesteps='all'), as the "
    "question needs. 'fast' holds queries and keys until its maps are computed, which is timed "
    "with it and is meant for joint attention, where they are smaller than the maps; in 'exact' "
    "and 'fast' diffusers' own attention runs, so the output is equal to plain in every bit.",
    "Peak includes what plain sampling itself needs, which its row shows; it can be less than what "
    "is held, where that reuses memory of the warm-up.",
    "nnsight records what it is told to: here the map from queries and keys, with the mask. "
    "Neither it nor a processor that keeps every map has files of its own: one torch.save each.",
    "From maps on disk, the answer is scores by a few lines of torch, in this process. From a "
    "store it is `rank`, which gives an interval and a p-value for every head too; 'score' is the "
    "scores alone, for all alike. Files were just written and so are read from memory.",
    "The mass error is the largest of a head's mean attention to a role, in [0, 1], over heads, "
    "steps, branches and prompts, against maps in float64; a store holds float16. 'top' counts "
    f"heads in common with the top {TOP} by float64. The output difference is the largest over "
    "latents, in standard deviations of the plain ones.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Median and extremes over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Rounded to four digits."""
        digits = (float(f"{value:.4g}") for value in (median(values), min(values), max(values)))
        return cls(**dict(zip(("median", "low", "high"), digits, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The results of one variant in one environment."""

    environment: str
    variant: str
    not_run: str | None = None
    """Why everything else is None."""
    rounds: int | None = None
    processor_seconds: Range | None = None
    over_plain: Range | None = None
    """Ratio to plain sampling in the same process and round."""
    peak_memory_growth_bytes: int | None = None
    held_bytes: int | None = None
    """Of what is recorded, at its largest."""
    disk_bytes: int | None = None
    files: int | None = None
    write_seconds: float | None = None
    """None where nothing is written, or the sampling writes."""
    answer_seconds: float | None = None
    """Processor seconds from files to the names of the best heads, median of three."""
    score_seconds: float | None = None
    """To the scores alone."""
    no_answer: str | None = None
    """Why there is none."""
    top_in_common: int | None = None
    """Of the best heads, with those by maps in float64."""
    largest_mass_error: float | None = None
    largest_output_difference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """Memory of one variant at another number of steps."""

    environment: str
    variant: str
    steps: int
    not_run: str | None = None
    """Why the rest is None."""
    peak_memory_growth_bytes: int | None = None
    held_bytes: int | None = None


def report(rows: Sequence[Row], swept: Sequence[SweepRow], size: Size) -> None:
    """The notes, the sweep and, last, the table."""
    print()
    for note in NOTES:
        print(fill(note, 110, initial_indent="- ", subsequent_indent="  "))
    for reason in dict.fromkeys(row.no_answer for row in rows if row.no_answer):
        names = dict.fromkeys(row.variant for row in rows if row.no_answer == reason)
        print(f"- no answer from {', '.join(names)}: {reason}.")
    if swept:
        _report_sweep(swept)
    columns = "{:33} {:>6} {:>18} {:>6} {:>6} {:>6} {:>5} {:>6} {:>6} {:>6} {:>5} {:>8} {:>8}"
    counts = {row.rounds for row in rows if row.rounds}
    print(
        f"\n{size.samples} prompts, {size.steps} steps, {size.layers} layers of {size.heads} "
        f"heads; processor seconds, median of {max(counts, default=0)} rounds; sizes in MiB"
    )
    print(
        columns.format(
            "variant", "s", "x plain", "peak", "held", "disk", "files", "write", "answer",
            "score", "top", "mass err", "out diff",
        )
    )  # fmt: skip
    for row in rows:
        if row.not_run:
            print(f"{_name(row):33} not run: {row.not_run}")
            continue
        print(
            columns.format(
                _name(row),
                _median(row.processor_seconds),
                _ratio(row.over_plain),
                *(
                    _mebibytes(each)
                    for each in (row.peak_memory_growth_bytes, row.held_bytes, row.disk_bytes)
                ),
                _number(row.files, "d"),
                _number(row.write_seconds, ".2f"),
                _number(row.answer_seconds, ".2f"),
                _number(row.score_seconds, ".2f"),
                "-" if row.top_in_common is None else f"{row.top_in_common}/{TOP}",
                _number(row.largest_mass_error, ".1e"),
                _number(row.largest_output_difference, ".1e"),
            )
        )


def _report_sweep(swept: Sequence[SweepRow]) -> None:
    steps = sorted({row.steps for row in swept})
    print(
        f"\n{'peak memory growth, MiB':33}" + "".join(f"{f'{count} steps':>15}" for count in steps)
    )
    for name in dict.fromkeys(_name(row) for row in swept):
        cells = (_mebibytes(row.peak_memory_growth_bytes) for row in swept if _name(row) == name)
        print(f"{name:33}" + "".join(f"{cell:>15}" for cell in cells))
    for row in swept:
        if row.not_run:
            print(f"{_name(row)}, {row.steps} steps: {row.not_run}")


def _name(row: Row | SweepRow) -> str:
    return f"plain, {row.environment}" if row.variant == "plain" else row.variant


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _mebibytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:.1f}"


def _median(seconds: Range | None) -> str:
    return "-" if seconds is None else f"{seconds.median:.1f}"


def _ratio(ratio: Range | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
