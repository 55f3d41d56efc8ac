from dataclasses import replace
from math import pi, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.axes import RELATION_DIRECTIONS, RELATIONS
from attnsearch.errors import ConfigError
from attnsearch.task.scenes import (
    BACKGROUND,
    Scenes,
    classify_relation,
    coverage,
    draw_scenes,
    render,
)
from attnsearch.task.spec import (
    COLOURS,
    OBJECT_PAIRS,
    PRESETS,
    SHAPES,
    held_out_combinations,
)

SMALL, PAPER = PRESETS["small"], PRESETS["paper"]
COUNT = 20_000
HELD_OUT_SMALL = [
    (0, 3),
    (1, 0),
    (2, 2),
    (3, 4),
    (4, 5),
    (5, 6),
    (6, 1),
    (7, 7),
    (8, 3),
    (9, 0),
    (10, 2),
    (11, 4),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", params=PRESETS.values(), ids=PRESETS)
def preset(request):
    return request.param, draw_scenes(request.param, COUNT, generator())


def frequencies(scenes):
    return torch.bincount(scenes.relation, minlength=len(RELATIONS)) / len(scenes.relation)


def test_colours_and_shapes_of_a_pair_always_differ():
    assert len(set(OBJECT_PAIRS)) == 12
    for (colour1, shape1), (colour2, shape2) in OBJECT_PAIRS:
        assert {colour1, colour2} == set(COLOURS)
        assert shape1 != shape2


def test_every_pair_is_equally_frequent_unless_a_combination_is_held_out(preset):
    _, scenes = preset
    share = torch.bincount(scenes.pair, minlength=12) / COUNT
    assert (share - 1 / 12).abs().max() < 0.01


def test_relations_are_balanced_in_the_small_preset_without_held_out():
    scenes = draw_scenes(replace(SMALL, held_out_seed=None), COUNT, generator())
    assert (frequencies(scenes) - 1 / 8).abs().max() < 0.01


def test_held_out_combinations_thin_a_relation_by_no_more_than_their_share():
    assert (frequencies(draw_scenes(SMALL, COUNT, generator())) - 1 / 8).abs().max() < 0.02


def test_the_paper_preset_is_mostly_diagonal():
    share = dict(zip(RELATIONS, frequencies(draw_scenes(PAPER, COUNT, generator())), strict=True))
    diagonals = {name: value for name, value in share.items() if "_" in name}
    assert sum(diagonals.values()) == pytest.approx(0.79, abs=0.015)
    for value in diagonals.values():
        assert value == pytest.approx(0.197, abs=0.01)
    for name in ("left", "right"):
        assert share[name] == pytest.approx(0.050, abs=0.006)
    for name in ("above", "below"):
        assert share[name] == pytest.approx(0.056, abs=0.006)


def test_the_paper_preset_overlaps_boxes_as_often_as_the_paper():
    scenes = draw_scenes(PAPER, COUNT, generator())
    offset = (scenes.centre[:, 0] - scenes.centre[:, 1]).abs()
    overlapping = (offset < 2 * PAPER.radius).all(1).float().mean()
    assert overlapping == pytest.approx(0.305, abs=0.015)


def test_centres_are_whole_pixels_that_leave_a_pixel_of_margin(preset):
    spec, scenes = preset
    assert (scenes.centre == scenes.centre.round()).all()
    assert scenes.centre.min() == spec.radius + 1
    assert scenes.centre.max() == spec.canvas - spec.radius - 1


def test_centres_keep_the_smallest_distance(preset):
    spec, scenes = preset
    distance = (scenes.centre[:, 0] - scenes.centre[:, 1]).norm(dim=1)
    assert distance.min() >= spec.min_distance * spec.radius


def test_the_relation_of_a_scene_is_that_of_its_centres(preset):
    spec, scenes = preset
    offset = scenes.centre[:, 0] - scenes.centre[:, 1]
    assert (classify_relation(offset, spec.axis_tolerance) == scenes.relation).all()


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_step_in_its_direction_has_the_relation(relation):
    offset = 20 * torch.tensor(RELATION_DIRECTIONS[relation])
    assert RELATIONS[int(classify_relation(offset, 5))] == relation


def test_an_offset_of_exactly_the_tolerance_counts_as_none():
    offsets = torch.tensor([[5.0, -40.0], [6.0, -40.0], [40.0, 5.0], [40.0, 6.0]])
    names = [RELATIONS[index] for index in classify_relation(offsets, 5)]
    assert names == ["above", "upper_right", "right", "lower_right"]


def test_balanced_offsets_stay_clear_of_the_borders_between_relations():
    scenes = draw_scenes(SMALL, COUNT, generator())
    offset = scenes.centre[:, 0] - scenes.centre[:, 1]
    for move in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        moved = classify_relation(offset + torch.tensor(move), SMALL.axis_tolerance)
        assert (moved == scenes.relation).all()


def test_held_out_combinations_are_never_drawn_but_every_pair_and_relation_is():
    held_out = held_out_combinations(SMALL)
    scenes = draw_scenes(SMALL, COUNT, generator())
    drawn = set(zip(scenes.pair.tolist(), scenes.relation.tolist(), strict=True))
    assert not drawn & held_out
    assert len(drawn) == 12 * 8 - len(held_out)


@given(seed=st.integers(0, 2**63))
def test_every_pair_loses_one_relation_and_the_losses_are_even(seed):
    held_out = held_out_combinations(replace(SMALL, held_out_seed=seed))
    assert sorted(pair for pair, _ in held_out) == list(range(12))
    losses = [sum(relation == each for _, each in held_out) for relation in range(8)]
    assert set(losses) == {1, 2}


def test_the_held_out_split_is_the_same_for_ever():
    assert sorted(held_out_combinations(SMALL)) == HELD_OUT_SMALL


def test_splits_of_other_seeds_differ():
    splits = {held_out_combinations(replace(SMALL, held_out_seed=seed)) for seed in range(10)}
    assert len(splits) == 10


def test_nothing_is_held_out_without_a_seed():
    assert held_out_combinations(PAPER) == frozenset()


def test_the_same_seed_draws_the_same_scenes():
    first, second = (draw_scenes(SMALL, 50, generator(3)) for _ in range(2))
    assert torch.equal(first.pair, second.pair)
    assert torch.equal(first.relation, second.relation)
    assert torch.equal(first.centre, second.centre)


def test_images_lie_between_minus_one_and_one(preset):
    spec, scenes = preset
    images = render(spec, Scenes(scenes.pair[:64], scenes.relation[:64], scenes.centre[:64]))
    assert images.shape == (64, 3, spec.canvas, spec.canvas)
    assert images.dtype == torch.float32
    assert images.min() == -1
    assert images.max() == 1


def test_a_scene_looks_the_same_alone_and_in_a_batch():
    scenes = draw_scenes(SMALL, 20, generator())
    together = render(SMALL, scenes)
    for index in range(20):
        one = slice(index, index + 1)
        alone = Scenes(scenes.pair[one], scenes.relation[one], scenes.centre[one])
        assert torch.equal(render(SMALL, alone)[0], together[index])


def test_object_2_lies_on_top_of_object_1():
    pair = OBJECT_PAIRS.index((("red", "circle"), ("blue", "square")))
    centre = torch.tensor([[[14.0, 16.0], [18.0, 16.0]]])
    scenes = Scenes(torch.tensor([pair]), torch.tensor([RELATIONS.index("left")]), centre)
    image = render(SMALL, scenes)[0]
    assert image[:, 16, 16].tolist() == [-1, -1, 1]
    assert image[:, 16, 9].tolist() == [1, -1, -1]


def test_the_canvas_is_grey_where_nothing_lies():
    image = render(SMALL, draw_scenes(SMALL, 1, generator()))[0]
    torch.testing.assert_close(image[:, 0, 0], torch.full((3,), 2 * BACKGROUND - 1))


@pytest.mark.parametrize("radius", [6, 16])
@pytest.mark.parametrize(
    ("shape", "area"), [("triangle", sqrt(3)), ("circle", pi), ("square", 4.0)]
)
def test_the_area_covered_is_that_of_the_shape(shape, area, radius):
    canvas = 4 * radius
    cover = coverage(
        torch.tensor([SHAPES.index(shape)]), torch.full((1, 2), canvas / 2), radius, canvas
    )
    assert cover.sum() == pytest.approx(area * radius**2, rel=0.02)
    assert cover.min() == 0
    assert cover.max() == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_the_centre_of_a_shape_is_its_centroid(shape):
    cover = coverage(torch.tensor([SHAPES.index(shape)]), torch.tensor([[31.0, 40.0]]), 16, 72)[0]
    axis = torch.arange(72) + 0.5
    assert (cover.sum(0) * axis).sum() / cover.sum() == pytest.approx(31, abs=0.02)
    assert (cover.sum(1) * axis).sum() / cover.sum() == pytest.approx(40, abs=0.1)


def test_a_triangle_points_up():
    rows = coverage(torch.tensor([SHAPES.index("triangle")]), torch.tensor([[32.0, 32.0]]), 16, 64)
    widths = rows[0].sum(1)
    assert widths[18] < widths[30] < widths[40]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"radius": 0}, "radius 0"),
        ({"radius": 12}, "radius 12"),
        ({"axis_tolerance": 6}, "axis_tolerance 6"),
        ({"colour_dropout": 1.5}, "colour_dropout 1.5"),
        ({"min_distance": 4.0}, "min_distance 4.0"),
    ],
)
def test_a_task_that_cannot_be_drawn_is_refused_by_name(change, named):
    with pytest.raises(ConfigError, match=named):
        replace(SMALL, **change)
