"""Heads switched off while a model samples, and what that does to its images."""

from attnsearch.ablation.effects import Effect, measure_effects
from attnsearch.ablation.hooks import Ablation, MeanOutputs, Mode, ablated, mean_outputs

__all__ = [
    "Ablation",
    "Effect",
    "MeanOutputs",
    "Mode",
    "ablated",
    "mean_outputs",
    "measure_effects",
]
