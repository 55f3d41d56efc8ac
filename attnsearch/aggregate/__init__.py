"""Reducing what scans hold to statistics, piece by piece, wherever tasks run.

`quantities` says what is read off a map, `algebra` what is kept of many, `reduction` spreads the
work, and `aggregator` reads only what it has not read before.
"""

from attnsearch.aggregate.aggregator import Aggregator
from attnsearch.aggregate.algebra import Covariance, Extremes, Histogram, Moments, Statistic
from attnsearch.aggregate.basis import basis_of, kept_energy
from attnsearch.aggregate.planning import Plan
from attnsearch.aggregate.quantities import (
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
