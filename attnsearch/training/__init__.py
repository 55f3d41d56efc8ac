"""Training a DiT on the relation task."""

from typing import TYPE_CHECKING, Final

from attnsearch.lazy import loader

if TYPE_CHECKING:
    from attnsearch.training.config import TrainingConfig as TrainingConfig
    from attnsearch.training.dropout import ColourDropout as ColourDropout
    from attnsearch.training.folder import check_unused as check_unused
    from attnsearch.training.start import WarmStart as WarmStart
    from attnsearch.training.trainer import Trainer as Trainer
    from attnsearch.training.trainer import check_same_run as check_same_run

_HOMES: Final = {
    "ColourDropout": "dropout",
    "Trainer": "trainer",
    "TrainingConfig": "config",
    "WarmStart": "start",
    "check_same_run": "trainer",
    "check_unused": "folder",
}

__all__ = sorted(_HOMES)
__getattr__ = loader(__name__, _HOMES)
