"""From per-head statistics to scores that can be believed; knows nothing of torch."""

from typing import TYPE_CHECKING, Final

from attnsearch.lazy import loader

if TYPE_CHECKING:
    from attnsearch.metrics.catalogue import FROM_WEIGHTS as FROM_WEIGHTS
    from attnsearch.metrics.catalogue import METRICS as METRICS
    from attnsearch.metrics.catalogue import Metric as Metric
    from attnsearch.metrics.catalogue import metric as metric
    from attnsearch.metrics.inference import HeadScores as HeadScores
    from attnsearch.metrics.questions import Question as Question
    from attnsearch.metrics.questions import Template as Template
    from attnsearch.metrics.questions import parse as parse
    from attnsearch.metrics.ranking import Control as Control
    from attnsearch.metrics.ranking import RankedHead as RankedHead
    from attnsearch.metrics.ranking import control as control
    from attnsearch.metrics.ranking import head_scores as head_scores
    from attnsearch.metrics.ranking import rank as rank
    from attnsearch.metrics.view import View as View

_HOMES: Final = {
    "Control": "ranking",
    "FROM_WEIGHTS": "catalogue",
    "HeadScores": "inference",
    "METRICS": "catalogue",
    "Metric": "catalogue",
    "Question": "questions",
    "RankedHead": "ranking",
    "Template": "questions",
    "View": "view",
    "control": "ranking",
    "head_scores": "ranking",
    "metric": "catalogue",
    "parse": "questions",
    "rank": "ranking",
}

__all__ = sorted(_HOMES)
__getattr__ = loader(__name__, _HOMES)
