"""What ablations do to a model whose circuit was written by hand."""

import numpy as np
import torch
from planted_dit import OBJECT, PLACE, RELATIONAL

from attnsearch.ablation import MEASURES, Ablation, Effect, Mode, measure_effects, measure_tilts
from attnsearch.axes import HeadAddress
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig

SAMPLER = SamplerConfig(steps=1, guidance=1)
CPU = torch.device("cpu")
IDLE = HeadAddress(OBJECT.layer, 0)


def effects(checkpoint: Checkpoint, *ablations: Ablation) -> list[dict[str, Effect]]:
    return [*measure_effects(checkpoint, ablations, seeds=1, sampler=SAMPLER, device=CPU)]


def after(effect: dict[str, Effect]) -> dict[str, float]:
    return {name: effect[name].after for name in MEASURES}


def off(mode: Mode, *heads: HeadAddress, **more: object) -> Ablation:
    return Ablation(heads=frozenset(heads), mode=mode, **more)


def test_without_the_relational_head_relations_fall_to_chance_and_nothing_else_does(
    planted: Checkpoint,
) -> None:
    whole, *without = effects(
        planted, off(Mode.ZERO), off(Mode.ZERO, RELATIONAL), off(Mode.MEAN, RELATIONAL)
    )
    assert all(whole[name].before == 1 for name in MEASURES if name != "opposite")
    for effect in without:
        found = after(effect)
        assert found["shape"] == found["colour"] == found["binding"] == 1
        # Where the objects go is known but for which end of the axis is whose.
        assert found["relation_loose"] == found["opposite"] == 0.5
        assert effect["relation_loose"].p_value < 1e-6
        assert effect["relation_loose"].low < -0.4 < effect["relation_loose"].high < -0.3


def test_other_heads_matter_otherwise_or_not_at_all(planted: Checkpoint) -> None:
    place, object_head, idle = map(
        after, effects(planted, *(off(Mode.MEAN, head) for head in (PLACE, OBJECT, IDLE)))
    )
    assert place["shape"] == object_head["shape"] == 0
    assert idle["relation_strict"] == 1


def test_the_output_for_the_opposite_relation_swaps_the_objects(planted: Checkpoint) -> None:
    (swapped,) = map(after, effects(planted, off(Mode.OPPOSITE, RELATIONAL)))
    assert swapped["binding"] == swapped["opposite"] == 1
    assert swapped["relation_loose"] == 0


def test_only_hidden_words_that_a_head_reads_are_missed(planted: Checkpoint) -> None:
    phrase, colours, shapes = map(
        after,
        effects(
            planted,
            off(Mode.MASK, RELATIONAL),
            off(Mode.MASK, RELATIONAL, hide=frozenset({"colour1", "colour2"})),
            off(Mode.MASK, OBJECT, hide=frozenset({"shape1", "shape2"})),
        ),
    )
    assert phrase["relation_loose"] == 0  # no tag anywhere: object 2 at both ends
    assert colours["relation_strict"] == 1
    assert (shapes["shape"], shapes["colour"]) == (0, 1)


def test_another_prompts_output_puts_the_objects_as_that_prompt_would(planted: Checkpoint) -> None:
    (drawn,) = map(after, effects(planted, off(Mode.RESAMPLE, RELATIONAL)))
    # Of eight relations one is the same, and one is opposite.
    assert 0 < drawn["relation_loose"] < 1
    assert 0 < drawn["opposite"] < 1


def test_the_path_to_the_object_head_carries_all_there_is(planted: Checkpoint) -> None:
    through, past = map(
        after,
        effects(
            planted,
            off(Mode.OPPOSITE, RELATIONAL, into=frozenset({OBJECT})),
            off(Mode.OPPOSITE, RELATIONAL, into=frozenset({IDLE})),
        ),
    )
    assert through["opposite"] == 1
    assert past["relation_strict"] == 1


def test_only_the_object_head_is_tilted_and_only_by_the_relational_head(
    planted: Checkpoint,
) -> None:
    tilts = measure_tilts(
        planted,
        frozenset({RELATIONAL}),
        images=32,
        sampler=SamplerConfig(steps=2, guidance=1),
        device=CPU,
    )
    tilted = np.abs(tilts.whole).max(axis=0)
    assert np.unravel_index(tilted.argmax(), tilted.shape) == (OBJECT.layer, OBJECT.head)
    at = (slice(None), OBJECT.layer, OBJECT.head)
    assert (tilts.whole[at] > 1000).all()
    np.testing.assert_allclose(tilts.without[at], 0, atol=1)
    np.testing.assert_array_equal(
        tilts.whole[:, : RELATIONAL.layer + 1], tilts.without[:, : RELATIONAL.layer + 1]
    )


def test_a_head_that_does_nothing_leaves_every_tilt(planted: Checkpoint) -> None:
    tilts = measure_tilts(
        planted, frozenset({IDLE}), images=8, sampler=SamplerConfig(steps=1), device=CPU
    )
    np.testing.assert_allclose(tilts.without, tilts.whole, rtol=1e-4, atol=1e-3)


def test_how_many_images_are_painted_together_changes_nothing(planted: Checkpoint) -> None:
    asked = [off(Mode.OPPOSITE, RELATIONAL), off(Mode.ZERO, RELATIONAL)]
    together = measure_effects(planted, asked, seeds=1, sampler=SAMPLER, device=CPU, rows=40)
    assert [after(effect) for effect in together] == [
        after(effect) for effect in effects(planted, *asked)
    ]
