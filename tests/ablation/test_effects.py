"""Effects are differences of the same images with and without the heads."""

import numpy as np
import pytest
import torch
from planted_dit import RELATIONAL

from attnsearch.ablation import MEASURES, Ablation, Mode, measure_effects
from attnsearch.ablation.effects import effects_of, tokens_of
from attnsearch.axes import ROLES
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig

RELATION = MEASURES.index("relation_loose")


def outcomes(prompts: int, seeds: int) -> np.ndarray:
    return np.ones((prompts * seeds, len(MEASURES)), dtype=bool)


def test_what_is_lost_is_counted_in_its_own_measure() -> None:
    before = outcomes(48, 2)
    after = before.copy()
    after[::2, RELATION] = False
    effects = effects_of(before, after, seeds=2)
    relation = effects["relation_loose"]
    assert (relation.before, relation.after, relation.difference) == (1, 0.5, -0.5)
    # Every prompt loses one of its two images: there is nothing to draw from.
    assert relation.low == relation.high == pytest.approx(-0.5)
    assert relation.p_value == pytest.approx(2 * 0.5**48)
    assert effects["shape"].difference == 0
    assert effects["shape"].p_value == 1


def test_the_interval_is_over_prompts() -> None:
    before = outcomes(50, 4)
    after = before.copy()
    after[: 25 * 4, RELATION] = False  # all images of every second prompt
    wide = effects_of(before, after, seeds=4)["relation_loose"]
    narrow = effects_of(before, after, seeds=1)["relation_loose"]
    assert wide.low < -0.5 < wide.high
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_images_that_change_both_ways_are_no_effect() -> None:
    before = outcomes(40, 1)
    before[:20, RELATION] = False
    effect = effects_of(before, ~before, seeds=1)["relation_loose"]
    assert effect.difference == 0
    assert effect.p_value == 1


def test_the_phrase_is_all_between_the_objects() -> None:
    words = ["colour1", "shape1", "filler", "relation", "filler", "colour2", "shape2", "pad"]
    roles = torch.eye(len(ROLES))[[ROLES.index(word) for word in words]]
    assert tokens_of(roles[None])[0].tolist() == [word in ("filler", "relation") for word in words]
    shapes = frozenset({"shape1", "shape2"})
    assert tokens_of(roles[None], shapes)[0].tolist() == [word in shapes for word in words]


@pytest.mark.parametrize("mode", Mode)
def test_to_ablate_nothing_has_no_effect(planted: Checkpoint, mode: Mode) -> None:
    """Of images that can get worse: the model paints all that it is asked."""
    nothing = Ablation(heads=frozenset(), mode=mode, factor=0)
    head = Ablation(heads=frozenset({RELATIONAL}), mode=mode, factor=0)
    advanced: list[int] = []
    effects, without = measure_effects(
        planted,
        [nothing, head],
        seeds=1,
        sampler=SamplerConfig(steps=1, guidance=1),
        device=torch.device("cpu"),
        advance=advanced.append,
    )
    measured = [name for name in MEASURES if name != "opposite"]
    assert all(effects[name].before == effects[name].after == 1 for name in measured)
    assert effects["opposite"].before == effects["opposite"].after == 0
    assert without["relation_loose"].after < 1
    assert sum(advanced) == 3 * effects["shape"].images
