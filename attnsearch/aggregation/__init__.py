"""Reducing what scans hold to statistics, piece by piece, wherever tasks run.

`quantities` says what is read off a map, `algebra` what is kept of many, `reduction` spreads the
work, and `aggregator` reads only what it has not read before.
"""

from attnsearch.aggregation.aggregator import Aggregator
from attnsearch.aggregation.algebra import Covariance, Extremes, Histogram, Moments, Statistic
from attnsearch.aggregation.basis import basis_of, kept_energy
from attnsearch.aggregation.planning import Plan
from attnsearch.aggregation.quantities import (
    FUNCTIONAL,
    MEASURE,
    SHARE,
    TOTAL,
    Attention,
    Functional,
    Quantity,
    RegionScore,
    Stored,
)

__all__ = [
    "FUNCTIONAL",
    "MEASURE",
    "SHARE",
    "TOTAL",
    "Aggregator",
    "Attention",
    "Covariance",
    "Extremes",
    "Functional",
    "Histogram",
    "Moments",
    "Plan",
    "Quantity",
    "RegionScore",
    "Statistic",
    "Stored",
    "basis_of",
    "kept_energy",
]
