"""Putting the heads of one or more scans in order, with significance over all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.aggregation import Aggregator
from attnsearch.axes import HEAD, LAYER, SAMPLE, STEP, HeadAddress
from attnsearch.errors import MetricError
from attnsearch.metrics.filters import matching
from attnsearch.metrics.inference import DRAWS, HeadScores, family_wise, infer
from attnsearch.metrics.questions import Question, parse
from attnsearch.metrics.reader import Reader
from attnsearch.metrics.view import View
from attnsearch.store import Place, open_scans

NOISE_LEVEL: Final = "noise_level"
CONTROL: Final = "control"
"""Attribute of scans of models without meaning, beside which others are seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedHead:
    """One row of a ranking."""

    rank: int
    """1 is the head whose score is largest, by size where scores have a sign."""
    model: str
    """Name of the scan."""
    group: str | None
    """The value that its prompts share, of what was grouped by."""
    layer: int
    head: int
    score: float
    ci_low: float | None
    """Lower end of the 95 % interval over prompts; None where there is only one."""
    ci_high: float | None
    effect: float | None
    """Standard deviations of the null away from it; None, as what follows, where there is none."""
    p_value: float | None
    q_value: float | None
    """p-value adjusted for the number of rows: false discovery rate (Benjamini-Hochberg)."""
    p_family: float | None
    """p-value adjusted for the number of rows: chance of any false finding (max-statistic)."""
    peak_step: int
    """The step at which the score of a head is largest, by size where scores have a sign."""
    profile: tuple[float, ...]
    """The score of every step alone."""
    prompts: int
    """How many count."""

    @property
    def address(self) -> HeadAddress:
        """The head within its model."""
        return HeadAddress(self.layer, self.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What heads of networks with shuffled weights score, for comparison."""

    heads: int
    median: float
    largest: float
    """Sizes of scores."""


EVERYTHING: Final = View()


def rank(
    scans: Mapping[str, xr.Dataset] | Place | None = None,
    question: str | Question = "relational",
    aggregate: Aggregator | None = None,
    view: View = EVERYTHING,
    draws: int = DRAWS,
) -> list[RankedHead]:
    """Every head of every scan by its score, best first; controls are left out.

    `scans` are scans by name, or the store they are all in; by default the usual one, of
    ATTNSEARCH_STORE or `attnsearch.zarr` in the working directory. A question is a metric (see
    `METRICS`), a template `region -> role`, or arithmetic on these. `aggregate` reads the scans; by
    default in threads, and nobody watches.

    Raises:
        MetricError: the question or the view is wrong, or a scan lacks what it needs.
        StoreError: there is no such store, or something of it is damaged.
    """
    asked = parse(question) if isinstance(question, str) else question
    if scans is None or isinstance(scans, str | Path):
        scans = open_scans(scans)
    aggregate = aggregate or Aggregator()
    scored = [
        _Scored(
            model=model,
            group=group,
            scan=part,
            steps=_steps(model, part, view.noise),
            scores=head_scores(model, part, asked, aggregate, view, draws),
        )
        for model, scan in scans.items()
        if not scan.attrs.get(CONTROL)
        for group, part in _parts(model, scan, view)
    ]
    if scans and not scored:
        raise MetricError("all scans are controls, of shuffled weights, which are not ranked")
    return _ranked(scored)


def control(
    scans: Mapping[str, xr.Dataset],
    question: str | Question = "relational",
    aggregate: Aggregator | None = None,
    view: View = EVERYTHING,
) -> Control | None:
    """What the controls among scans score; None without any, or where they lack what is needed.

    Raises:
        MetricError: the question or the view is wrong.
    """
    asked = parse(question) if isinstance(question, str) else question
    sizes = []
    for model, scan in scans.items():
        if scan.attrs.get(CONTROL):
            try:
                part = _where(model, scan, view.where)
                scores = head_scores(model, part, asked, aggregate or Aggregator(), view, draws=1)
            except MetricError:  # no objects in the images of random weights, for example
                continue
            sizes.append(np.abs(scores.score))
    if not sizes:
        return None
    every = np.concatenate(sizes)
    return Control(heads=len(every), median=float(np.median(every)), largest=float(every.max()))


def head_scores(
    model: str,
    scan: xr.Dataset,
    question: Question,
    aggregate: Aggregator,
    view: View = EVERYTHING,
    draws: int = DRAWS,
) -> HeadScores:
    """Scores of every head of a scan; raises as `rank` does."""
    evidence = question.evidence(Reader(model=model, scan=scan, aggregate=aggregate))
    if view.noise is not None:
        evidence = evidence.part(slice(None), _steps(model, scan, view.noise), slice(None))
    return infer(evidence, view.over, draws)


def benjamini_hochberg(
    p_values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Adjusted p-values that control the false discovery rate (Benjamini, Hochberg 1995)."""
    # As scipy.stats.false_discovery_control, whose import takes as long as a ranking.
    order = np.argsort(p_values)
    count = len(p_values)
    scaled = p_values[order] * (count / np.arange(1, count + 1))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)
    return adjusted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    model: str
    group: str | None
    scan: xr.Dataset
    steps: npt.NDArray[np.intp]
    scores: HeadScores


def _steps(model: str, scan: xr.Dataset, noise: tuple[float, float] | None) -> npt.NDArray[np.intp]:
    """Numbers of the steps between two noise levels."""
    if noise is None:
        return np.arange(scan.sizes[STEP])
    if NOISE_LEVEL not in scan.coords:
        raise MetricError(f"{model} does not say the noise levels of its steps")
    levels = scan[NOISE_LEVEL].to_numpy()
    # A level such as 0.6 is not a float32.
    inside = np.flatnonzero((levels >= noise[0] - 1e-6) & (levels <= noise[1] + 1e-6))
    if not len(inside):
        known = ", ".join(f"{level:.3g}" for level in levels)
        raise MetricError(f"no step of {model} has a noise level in the range; it has {known}")
    return inside


def _where(model: str, scan: xr.Dataset, condition: str | None) -> xr.Dataset:
    if condition is None:
        return scan
    found = matching(scan, condition)
    if not found.any():
        raise MetricError(f"no sample of {model} is left where {condition}")
    return scan if found.all() else scan.isel({SAMPLE: np.flatnonzero(found)})


def _parts(model: str, scan: xr.Dataset, view: View) -> Iterator[tuple[str | None, xr.Dataset]]:
    """The parts of a scan that heads are scored on, each with the value its samples share."""
    scan = _where(model, scan, view.where)
    if view.by is None:
        yield None, scan
        return
    names = sorted(str(name) for name, each in scan.coords.items() if each.dims == (SAMPLE,))
    if view.by not in names:
        raise MetricError(f"heads are scored by {', '.join(names)}, not by {view.by}")
    column = scan[view.by].to_numpy().astype(object).astype(str)
    for value in np.unique(column):
        if value:
            yield str(value), scan.isel({SAMPLE: np.flatnonzero(column == value)})


def _ranked(scored: list[_Scored]) -> list[RankedHead]:
    if not scored:
        return []
    largest = np.maximum.reduce([each.scores.largest for each in scored])
    rows = [
        _row(each, number, float(family))
        for each in scored
        for number, family in enumerate(family_wise(each.scores.effect, largest))
    ]
    p_values = [row.p_value for row in rows]
    if None not in p_values:
        q_values = benjamini_hochberg(np.array(p_values, dtype=np.float64))
        rows = [
            replace(row, q_value=float(q_value))
            for row, q_value in zip(rows, q_values, strict=True)
        ]
    signed = any(each.scores.signed for each in scored)
    rows.sort(key=lambda row: -abs(row.score) if signed else -row.score)
    return [replace(row, rank=number + 1) for number, row in enumerate(rows)]


def _row(of: _Scored, number: int, family: float) -> RankedHead:
    scores = of.scores
    profile = scores.profile[:, number]
    peak = (np.abs(profile) if scores.signed else profile).argmax()
    layer, head = divmod(number, of.scan.sizes[HEAD])
    tested = scores.shuffled is not None
    return RankedHead(
        rank=0,
        model=of.model,
        group=of.group,
        layer=int(of.scan[LAYER][layer]),  # a scan may hold some layers, heads and steps only
        head=int(of.scan[HEAD][head]),
        score=float(scores.score[number]),
        ci_low=float(scores.ci_low[number]) if scores.prompts > 1 else None,
        ci_high=float(scores.ci_high[number]) if scores.prompts > 1 else None,
        effect=float(scores.effect[number]) if tested else None,
        p_value=float(scores.p_value[number]) if tested else None,
        q_value=None,
        p_family=family if tested else None,
        peak_step=int(of.scan[STEP][of.steps[peak]]),
        profile=tuple(float(value) for value in profile),
        prompts=scores.prompts,
    )
