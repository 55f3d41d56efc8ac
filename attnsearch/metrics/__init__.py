"""From per-head statistics to scores that can be believed; knows nothing of torch."""

from attnsearch.metrics.catalogue import METRICS, Metric
from attnsearch.metrics.inference import HeadScores
from attnsearch.metrics.questions import Question, Template, parse
from attnsearch.metrics.ranking import Control, RankedHead, View, control, head_scores, rank

__all__ = [
    "METRICS",
    "Control",
    "HeadScores",
    "Metric",
    "Question",
    "RankedHead",
    "Template",
    "View",
    "control",
    "head_scores",
    "parse",
    "rank",
]
