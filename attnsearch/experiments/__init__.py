"""Experiments: one file says what is trained and measured, one folder holds what came out.

`spec` reads the files, `execute` runs one experiment stage by stage, `parallel` runs several in
processes of their own, `publish` packs a finished one small enough to ship.
"""

from attnsearch.experiments.execute import News, is_finished, run_experiment
from attnsearch.experiments.measure import quick_accuracies
from attnsearch.experiments.parallel import run_all
from attnsearch.experiments.publish import publish
from attnsearch.experiments.spec import Experiment, read_experiment, training_config

__all__ = [
    "Experiment",
    "News",
    "is_finished",
    "publish",
    "quick_accuracies",
    "read_experiment",
    "run_all",
    "run_experiment",
    "training_config",
]
