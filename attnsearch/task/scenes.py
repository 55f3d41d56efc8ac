"""Drawing scenes: where two objects lie, and what the image of it looks like.

All of it is vectorised over the sample axis, since a training batch is drawn anew every step.
Shapes are signed distance fields, so an edge is anti-aliased over one pixel. Object 1 is drawn
first: where the two overlap, object 2 hides it, and that occlusion is what teaches a model
which of the two a caption names first.
"""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

import torch
from torch import Tensor

from attnsearch.axes import RELATION_DIRECTIONS, RELATIONS
from attnsearch.task.spec import (
    COLOURS,
    OBJECT_PAIRS,
    SHAPES,
    Layout,
    TaskSpec,
    held_out_combinations,
)

BACKGROUND: Final = 128 / 255
"""Grey level of the canvas, in [0, 1]."""
COLOUR_RGB: Final = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0)}

_PAIR_SHAPES: Final = torch.tensor([[SHAPES.index(s) for _, s in pair] for pair in OBJECT_PAIRS])
_PAIR_COLOURS: Final = torch.tensor([[COLOURS.index(c) for c, _ in pair] for pair in OBJECT_PAIRS])


@dataclass(frozen=True, slots=True)
class Scenes:
    """A batch of scenes."""

    pair: Tensor
    """[sample] index into `OBJECT_PAIRS`."""
    relation: Tensor
    """[sample] index into `RELATIONS`."""
    centre: Tensor
    """[sample, object, xy] centroids in pixels from the upper left corner of the canvas."""


def draw_scenes(spec: TaskSpec, count: int, generator: torch.Generator) -> Scenes:
    """Scenes of the training distribution, held-out combinations excluded.

    Centres are whole pixels, as in the paper. Under `Layout.UNIFORM` both centres are uniform and
    the relation follows; under `Layout.BALANCED` relations are uniform, and centres uniform within
    what the relation and `min_distance` allow.
    """
    allowed = torch.ones(len(OBJECT_PAIRS), len(RELATIONS), dtype=torch.bool)
    for pair_index, relation_index in held_out_combinations(spec):
        allowed[pair_index, relation_index] = False
    scenes = _draw(spec, count, generator)
    while True:
        rejected = (~allowed[scenes.pair, scenes.relation]).nonzero().squeeze(1)
        if not len(rejected):
            return scenes
        again = _draw(spec, len(rejected), generator)
        scenes.pair[rejected] = again.pair
        scenes.relation[rejected] = again.relation
        scenes.centre[rejected] = again.centre


def classify_relation(offset: Tensor, axis_tolerance: float) -> Tensor:
    """Relation index [...] of an offset centre1 - centre2 [..., xy] in pixels.

    The paper's rule: a horizontal offset within the tolerance makes it above or below, else a
    vertical one within it makes it left or right, else the relation is diagonal.
    """
    dx, dy = offset.unbind(-1)
    vertical = torch.where(dy < 0, _index("above"), _index("below"))
    horizontal = torch.where(dx < 0, _index("left"), _index("right"))
    diagonal = torch.where(
        dy < 0,
        torch.where(dx < 0, _index("upper_left"), _index("upper_right")),
        torch.where(dx < 0, _index("lower_left"), _index("lower_right")),
    )
    slanted = torch.where(dy.abs() <= axis_tolerance, horizontal, diagonal)
    return torch.where(dx.abs() <= axis_tolerance, vertical, slanted)


def render(spec: TaskSpec, scenes: Scenes) -> Tensor:
    """Images [sample, rgb, y, x] float32 in [-1, 1]."""
    cover = coverage(
        _PAIR_SHAPES[scenes.pair].flatten(), scenes.centre.flatten(0, 1), spec.radius, spec.canvas
    ).unflatten(0, (-1, 2))
    palette = torch.tensor([COLOUR_RGB[name] for name in COLOURS])
    colour = palette[_PAIR_COLOURS[scenes.pair]]
    image = torch.full((len(cover), 3, spec.canvas, spec.canvas), BACKGROUND)
    for index in range(2):
        image.lerp_(
            colour[:, index, :, None, None].expand_as(image),
            cover[:, index, None].expand_as(image),
        )
    return image.mul_(2).sub_(1)


def coverage(shape: Tensor, centre: Tensor, radius: float, canvas: int) -> Tensor:
    """Share of every pixel an object covers, [object, y, x] in [0, 1].

    Circle of the radius; square of side 2 radius; equilateral triangle of side 2 radius, point
    up. `centre` [object, xy] is the centroid in pixels.
    """
    axis = torch.arange(canvas) + 0.5
    x = axis - centre[:, 0, None]
    y = axis - centre[:, 1, None]
    circle = (x[:, None, :] ** 2 + y[:, :, None] ** 2).sqrt() - radius
    square = torch.maximum(x.abs()[:, None, :], y.abs()[:, :, None]) - radius
    inradius = radius / sqrt(3)
    triangle = torch.maximum(
        (y - inradius)[:, :, None],
        (sqrt(3) / 2) * x.abs()[:, None, :] - 0.5 * y[:, :, None] - inradius,
    )
    distance = torch.where(shape[:, None, None] == SHAPES.index("circle"), circle, square)
    distance = torch.where(shape[:, None, None] == SHAPES.index("triangle"), triangle, distance)
    return (0.5 - distance).clamp_(0, 1)


def _index(relation: str) -> Tensor:
    return torch.tensor(RELATIONS.index(relation))


def _draw(spec: TaskSpec, count: int, generator: torch.Generator) -> Scenes:
    pair = torch.randint(len(OBJECT_PAIRS), (count,), generator=generator)
    if spec.layout is Layout.UNIFORM:
        centre = _place(_uniform_offsets(spec, count, generator), spec, generator)
    else:
        centre = _place(_balanced_offsets(spec, count, generator), spec, generator)
    relation = classify_relation(centre[:, 0] - centre[:, 1], spec.axis_tolerance)
    return Scenes(pair, relation, centre)


def _uniform_offsets(spec: TaskSpec, count: int, generator: torch.Generator) -> Tensor:
    """Offsets [sample, xy] of two centres that are independent and uniform on the canvas."""
    offset = torch.zeros(0, 2)
    while len(offset) < count:
        ends = torch.randint(spec.span + 1, (2, count, 2), generator=generator).float()
        drawn = ends[0] - ends[1]
        far = drawn.norm(dim=1) >= spec.min_distance * spec.radius
        offset = torch.cat([offset, drawn[far]])
    return offset[:count]


def _balanced_offsets(spec: TaskSpec, count: int, generator: torch.Generator) -> Tensor:
    """Offsets [sample, xy] with uniform relations, clear of the borders between relations.

    Within a relation they are as likely as between two uniform centres. Half the axis tolerance
    is left free on either side of the rule, so that being a pixel off does not turn one relation
    into another.
    """
    directions = torch.tensor(list(RELATION_DIRECTIONS.values()))
    sign = directions.sign()[torch.randint(len(directions), (count,), generator=generator)]
    slack = spec.axis_tolerance // 2
    nearest = ceil(spec.min_distance * spec.radius)
    diagonal = sign.abs().sum(1, keepdim=True) == 2
    smallest = torch.where(diagonal, 2 * spec.axis_tolerance, max(nearest, spec.axis_tolerance + 1))
    offset = torch.zeros(count, 2)
    pending = torch.arange(count)
    while len(pending):
        reach = torch.arange(spec.span + 1)
        # As many places hold an offset as the canvas leaves free beside it.
        places = (spec.span + 1 - reach) * (reach >= smallest[pending])
        length = torch.multinomial(places.float(), 2, replacement=True, generator=generator)
        along = sign[pending] * length
        across = torch.randint(-slack, slack + 1, along.shape, generator=generator).float()
        offset[pending] = torch.where(sign[pending] == 0, across, along)
        too_near = offset[pending].norm(dim=1) < spec.min_distance * spec.radius
        pending = pending[too_near]
    return offset


def _place(offset: Tensor, spec: TaskSpec, generator: torch.Generator) -> Tensor:
    """Whole-pixel centres [sample, object, xy], uniform among those with the given offset.

    For uniform offsets the result is two independent uniform centres.
    """
    room = spec.span + 1 - offset.abs()
    corner = (torch.rand(offset.shape, generator=generator) * room).floor() + spec.radius + 1
    second = corner + (-offset).clamp(min=0)
    return torch.stack([second + offset, second], dim=1)
