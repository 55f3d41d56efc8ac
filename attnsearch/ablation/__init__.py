"""Heads switched off or steered while a model samples, and what that does to its images."""

from typing import TYPE_CHECKING, Final

from attnsearch.lazy import loader

if TYPE_CHECKING:
    from attnsearch.ablation.controls import layer_sets as layer_sets
    from attnsearch.ablation.controls import random_sets as random_sets
    from attnsearch.ablation.effects import MEASURES as MEASURES
    from attnsearch.ablation.effects import Effect as Effect
    from attnsearch.ablation.effects import measure_effects as measure_effects
    from attnsearch.ablation.effects import opposite_of as opposite_of
    from attnsearch.ablation.hooks import MeanOutputs as MeanOutputs
    from attnsearch.ablation.hooks import Part as Part
    from attnsearch.ablation.hooks import ablated as ablated
    from attnsearch.ablation.hooks import mean_outputs as mean_outputs
    from attnsearch.ablation.pipelines import ablated_pipeline as ablated_pipeline
    from attnsearch.ablation.request import Ablation as Ablation
    from attnsearch.ablation.request import Mode as Mode
    from attnsearch.ablation.request import check_relation as check_relation
    from attnsearch.ablation.request import check_roles as check_roles
    from attnsearch.ablation.request import check_strength as check_strength
    from attnsearch.ablation.steering import Lender as Lender
    from attnsearch.ablation.steering import Steering as Steering
    from attnsearch.ablation.steering import Tag as Tag
    from attnsearch.ablation.steering import steer_by_tag as steer_by_tag
    from attnsearch.ablation.steering import steer_by_text as steer_by_text
    from attnsearch.ablation.tilts import Tilts as Tilts
    from attnsearch.ablation.tilts import measure_tilts as measure_tilts

_HOMES: Final = {
    "Ablation": "request",
    "Effect": "effects",
    "Lender": "steering",
    "MEASURES": "effects",
    "MeanOutputs": "hooks",
    "Mode": "request",
    "Part": "hooks",
    "Steering": "steering",
    "Tag": "steering",
    "Tilts": "tilts",
    "ablated": "hooks",
    "ablated_pipeline": "pipelines",
    "check_relation": "request",
    "check_roles": "request",
    "check_strength": "request",
    "layer_sets": "controls",
    "mean_outputs": "hooks",
    "measure_effects": "effects",
    "measure_tilts": "tilts",
    "opposite_of": "effects",
    "random_sets": "controls",
    "steer_by_tag": "steering",
    "steer_by_text": "steering",
}

__all__ = sorted(_HOMES)
__getattr__ = loader(__name__, _HOMES)
