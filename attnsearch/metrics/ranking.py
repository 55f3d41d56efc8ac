"""Putting the heads of one or more scans in order, with significance over all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr

from attnsearch.aggregate import Aggregator
from attnsearch.axes import HEAD, LAYER, STEP, HeadAddress
from attnsearch.errors import MetricError
from attnsearch.metrics.relational import HeadScores, relational

METRICS: Final[dict[str, Callable[[xr.Dataset, Aggregator], HeadScores]]] = {
    "relational": relational
}
"""Metrics by the name the command line knows them under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedHead:
    """One row of a ranking."""

    rank: int
    """1 is the head whose score is largest in size."""
    model: str
    """Name of the scan."""
    layer: int
    head: int
    score: float
    ci_low: float
    ci_high: float
    p_value: float
    q_value: float
    """p-value adjusted for the number of heads (Benjamini-Hochberg)."""
    peak_step: int

    @property
    def address(self) -> HeadAddress:
        """The head within its model."""
        return HeadAddress(self.layer, self.head)


def rank(
    scans: Mapping[str, xr.Dataset], metric: str, aggregate: Aggregator | None = None
) -> list[RankedHead]:
    """Every head of every scan, by size of its score, best first.

    `aggregate` reads the scans; by default in threads, and nobody watches.

    Raises:
        MetricError: the metric is unknown, or a scan lacks what it needs.
    """
    if metric not in METRICS:
        raise MetricError(f"unknown metric {metric!r}; known: {', '.join(sorted(METRICS))}")
    rows = []
    for model, scan in scans.items():
        scores = METRICS[metric](scan, aggregate or Aggregator())
        rows += [(model, layer, head, scores) for layer, head in np.ndindex(scores.score.shape)]
    q_values = benjamini_hochberg(
        np.array([scores.p_value[layer, head] for _, layer, head, scores in rows])
    )
    order = sorted(range(len(rows)), key=lambda i: -abs(rows[i][3].score[rows[i][1], rows[i][2]]))
    return [
        _ranked(position + 1, scans[rows[index][0]], *rows[index], float(q_values[index]))
        for position, index in enumerate(order)
    ]


def benjamini_hochberg(
    p_values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Adjusted p-values that control the false discovery rate (Benjamini, Hochberg 1995)."""
    from scipy.stats import false_discovery_control  # slow to import

    return np.asarray(false_discovery_control(p_values, method="bh"), dtype=np.float64)


def _ranked(
    position: int,
    scan: xr.Dataset,
    model: str,
    layer: int,
    head: int,
    scores: HeadScores,
    q_value: float,
) -> RankedHead:
    at = (layer, head)
    return RankedHead(
        rank=position,
        model=model,
        layer=int(scan[LAYER][layer]),  # a scan may hold some layers, heads and steps only
        head=int(scan[HEAD][head]),
        score=float(scores.score[at]),
        ci_low=float(scores.ci_low[at]),
        ci_high=float(scores.ci_high[at]),
        p_value=float(scores.p_value[at]),
        q_value=q_value,
        peak_step=int(scan[STEP][scores.peak_step[at]]),
    )
