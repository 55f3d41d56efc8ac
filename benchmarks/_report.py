"""The tables of `kernels.py`, and whether its targets are met."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from _cases import SHORT_TEXT
from _measure import Row, Variant

from attnsearch_kernels import SketchedAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on one figure of every row that has it."""

    figure: Callable[[Row], float | None]
    text: str
    most: float | None = None
    least: float | None = None

    def missed(self, rows: list[Row]) -> dict[str, float]:
        """The figures out of bounds, by row."""
        return {
            label: figure
            for label, figure in self.figures(rows).items()
            if (self.most is not None and figure > self.most)
            or (self.least is not None and figure < self.least)
        }

    def figures(self, rows: list[Row]) -> dict[str, float]:
        """Of every row that has one."""
        found = {row.label: self.figure(row) for row in rows}
        return {label: figure for label, figure in found.items() if figure is not None}


def report_row(row: Row) -> None:
    """Every variant of one call."""
    sizes = row.sizes
    tiles = row.configuration
    ran = f"{tiles['kernel']} {tiles['block_queries']}x{tiles['block_keys']}" if tiles else ""
    print(
        f"\n{row.label}: B {sizes.batch} H {sizes.heads} N {sizes.tokens} M {sizes.keys} "
        f"D {sizes.channels} F {sizes.basis} G {sizes.roles}, {row.backend} {ran}".rstrip()
    )
    columns = "  {:16} {:>10} {:>19} {:>7} {:>7} {:>8}  {}"
    print(columns.format("variant", "us", "20-80 %", "/ plain", "% floor", "MiB", "lacks"))
    for name, variant in row.variants.items():
        print(columns.format(name, *_cells(variant)).rstrip(), flush=True)


def report_rows(rows: list[Row]) -> None:
    """One line per call: what the operator takes, and what others take relative to it."""
    others = ("behind_lse", "appended", "materialised", "compiled", "naive")
    columns = "{:34} {:>10} {:>10} {:>7} {:>7}" + " {:>12}" * len(others)
    print("\nmicroseconds; the columns after % floor are relative to sketched")
    print(columns.format("call", "plain", "sketched", "/ plain", "% floor", *others))
    for row in rows:
        sketched = row.variants["sketched"]
        percent = sketched.floor_percent
        print(
            columns.format(
                row.label,
                _number(row.median("plain"), ".1f"),
                _number(row.median("sketched"), ".1f"),
                _number(_over(row, "sketched", "plain"), ".2f"),
                _number(percent, ".0f"),
                *(_number(_relative(row, name), ".2f") for name in others),
            )
        )


def report_targets(rows: list[Row], device: str) -> None:
    """Which targets are met, and by how much the others are not."""
    for target in TARGETS[device]:
        if not (figures := target.figures(rows)):
            continue
        missed = target.missed(rows)
        worst = max(figures.values()) if target.most is not None else min(figures.values())
        print(f"{'missed' if missed else 'met':7}{target.text} (worst {worst:.2f})")
        for label, figure in missed.items():
            print(f"         {label} {figure:.2f}")


def _over(row: Row, name: str, baseline: str) -> float | None:
    """Ratio of two medians, where both were timed."""
    time, base = row.median(name), row.median(baseline)
    return None if time is None or base is None else time / base


def _relative(row: Row, name: str) -> float | None:
    """A variant over the operator; the better one of the two that append columns."""
    names = ("appended", "appended_padded") if name == "appended" else (name,)
    ratios = (_over(row, each, "sketched") for each in names)
    return min((ratio for ratio in ratios if ratio is not None), default=None)


def _of(shapes: str, figure: Callable[[Row], float | None]) -> Callable[[Row], float | None]:
    """The figure for the shapes whose name begins like this."""
    return lambda row: figure(row) if row.shape.startswith(shapes) else None


def _text_of(
    fits: Callable[[int], bool], figure: Callable[[Row], float | None]
) -> Callable[[Row], float | None]:
    """The figure for texts of some lengths."""
    return lambda row: figure(row) if fits(row.sizes.keys) else None


def _over_plain(row: Row) -> float | None:
    return _over(row, "sketched", "plain")


def _over_naive(row: Row) -> float | None:
    return _over(row, "naive", "sketched")


TARGETS: Final = {
    "cpu": (
        Target(
            text=f"sketched / plain at most 1.15 up to {SHORT_TEXT} text tokens",
            figure=_text_of(lambda keys: keys <= SHORT_TEXT, _over_plain),
            most=1.15,
        ),
        Target(
            text="sketched / plain at most 1.5 at more",
            figure=_text_of(lambda keys: keys > SHORT_TEXT, _over_plain),
            most=1.5,
        ),
    ),
    "cuda": (
        Target(text="sketched / plain at most 1.15", figure=_over_plain, most=1.15),
        Target(
            text="sketched at least 60 % of the floor",
            figure=lambda row: row.variants["sketched"].floor_percent,
            least=60,
        ),
        Target(
            text="naive / sketched at least 5 at small-dit shapes",
            figure=_of("small-dit", _over_naive),
            least=5,
        ),
        Target(
            text="naive / sketched at least 20 at pixart shapes",
            figure=_of("pixart", _over_naive),
            least=20,
        ),
        Target(
            text="appended / sketched at least 1",
            figure=lambda row: _relative(row, "appended"),
            least=1,
        ),
    ),
}
"""By kind of device. Missing one is a result, not an error."""


def _cells(variant: Variant) -> list[str]:
    """Of one variant, from the microseconds on."""
    times = variant.microseconds
    if times is None:
        return ["-"] * 5 + [variant.note or ""]
    memory = None if variant.peak_bytes is None else variant.peak_bytes / 2**20
    lacks = [field for field in SketchedAttention._fields if field not in variant.computes]
    by = ["launches timed too"] if variant.timed_by == "events" else []
    return [
        f"{times.median:.1f}",
        f"{times.p20:.1f}-{times.p80:.1f}",
        _number(variant.over_plain.median if variant.over_plain else None, ".2f"),
        _number(variant.floor_percent, ".0f"),
        _number(memory, ".0f"),
        ", ".join(lacks + by) or "nothing",
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
