"""From per-head statistics to scores that can be believed; knows nothing of torch."""

from attnsearch.metrics.ranking import METRICS, RankedHead, rank
from attnsearch.metrics.relational import relational_by_step
from attnsearch.metrics.templates import Template, TemplateScore, ask

__all__ = [
    "METRICS",
    "RankedHead",
    "Template",
    "TemplateScore",
    "ask",
    "rank",
    "relational_by_step",
]
