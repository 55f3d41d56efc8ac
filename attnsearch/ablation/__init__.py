"""Heads switched off while a model samples, and what that does to its images."""

from attnsearch.ablation.effects import MEASURES, Effect, measure_effects, opposite_of
from attnsearch.ablation.hooks import Ablation, MeanOutputs, Mode, Part, ablated, mean_outputs
from attnsearch.ablation.tilts import Tilts, measure_tilts

__all__ = [
    "MEASURES",
    "Ablation",
    "Effect",
    "MeanOutputs",
    "Mode",
    "Part",
    "Tilts",
    "ablated",
    "mean_outputs",
    "measure_effects",
    "measure_tilts",
    "opposite_of",
]
