"""Training a DiT on the relation task."""

from attnsearch.training.config import TrainingConfig
from attnsearch.training.dropout import ColourDropout
from attnsearch.training.start import WarmStart
from attnsearch.training.trainer import Trainer, check_same_run

__all__ = ["ColourDropout", "Trainer", "TrainingConfig", "WarmStart", "check_same_run"]
