"""Training a DiT on the relation task."""

from attnsearch.training.config import TrainingConfig
from attnsearch.training.trainer import Trainer

__all__ = ["Trainer", "TrainingConfig"]
