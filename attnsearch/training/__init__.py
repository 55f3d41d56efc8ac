"""Training a DiT on the relation task."""

from attnsearch.training.config import TrainingConfig
from attnsearch.training.trainer import Trainer, check_same_run

__all__ = ["Trainer", "TrainingConfig", "check_same_run"]
