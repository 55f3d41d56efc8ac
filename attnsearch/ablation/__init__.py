"""Heads switched off or steered while a model samples, and what that does to its images."""

from attnsearch.ablation.controls import layer_sets, random_sets
from attnsearch.ablation.effects import MEASURES, Effect, measure_effects, opposite_of
from attnsearch.ablation.hooks import Ablation, MeanOutputs, Mode, Part, ablated, mean_outputs
from attnsearch.ablation.pipelines import ablated_pipeline
from attnsearch.ablation.steering import Lender, Steering, Tag, steer_by_tag, steer_by_text
from attnsearch.ablation.tilts import Tilts, measure_tilts

__all__ = [
    "MEASURES",
    "Ablation",
    "Effect",
    "Lender",
    "MeanOutputs",
    "Mode",
    "Part",
    "Steering",
    "Tag",
    "Tilts",
    "ablated",
    "ablated_pipeline",
    "layer_sets",
    "mean_outputs",
    "measure_effects",
    "measure_tilts",
    "opposite_of",
    "random_sets",
    "steer_by_tag",
    "steer_by_text",
]
