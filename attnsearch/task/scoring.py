"""Scoring an image: which objects are in it, and whether they are what was asked for.

An image is unmixed into how much of every pixel is red and how much is blue; connected pieces
of a colour are then matched against the three shapes, in several sizes and at every whole-pixel
centre, leaving out the pixels the other colour hides. The centre is that of the matched shape,
so a triangle has none of the bias its bounding box would give it. The yes-or-no scores follow
arXiv 2601.06338. Rates over many images and their intervals live in `evaluation`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import ceil, sqrt
from statistics import fmean
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import fft, ndimage

from attnsearch.axes import RELATION_DIRECTIONS, RELATIONS
from attnsearch.task.captions import Caption
from attnsearch.task.scenes import BACKGROUND, COLOUR_RGB, classify_relation, coverage
from attnsearch.task.spec import COLOURS, OBJECT_PAIRS, SHAPES, TaskSpec

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MIN_FIT: Final = 0.8
"""Least soft intersection over union at which a piece counts as a shape."""
SIZES: Final = (1.0, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3)
"""Sizes, in nominal ones, at which shapes are tried: knowing that a piece is a small circle keeps
it from passing as a triangle."""
SIZE_TOLERANCE: Final = 0.2
"""A piece whose best size is further than this from nominal counts as no shape."""
CLEAR_FIT: Final = 0.93
"""At this fit in nominal size no other size is tried: no shape of another kind reaches 0.9."""
MAX_RESIDUAL: Final = 0.25
"""Largest distance in RGB, each channel in [0, 1], between a pixel and the nearest blend of
grey, red and blue."""
MIN_PURITY: Final = 0.65
"""Least mean coverage inside an object's outline. All three channels may be off by 0.17 towards
grey where the paper allows 25/255 = 0.1, since generated colours are rarely pure."""
SOLID: Final = 0.1
"""Coverages within this of 0 and of 1 are taken as 0 and 1, which absorbs noise."""
MIN_AREA: Final = 100 / 16**2
"""Smallest visible area of an object in squared radii: the paper's 100 px at radius 16."""
_MIN_PIECE: Final = MIN_AREA / 8
_MAX_CUTS: Final = 3
"""Most pieces split off an object: one of the shapes over another leaves four at most."""
_SOFT_EDGE: Final = 2
"""Pixels beyond the half-coverage outline that still belong to an object."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectedObject:
    """One object found in an image."""

    colour: str
    shape: str | None
    """One of `SHAPES`; None where none fits well enough."""
    centre: tuple[float, float]
    """Centroid (x, y) of the best fitting shape, hidden parts included, pixels."""
    mask: Floats
    """Visible coverage [y, x] in [0, 1]."""
    fit: float
    """Soft intersection over union of the best shape over the pixels that nothing hides."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageScore:
    """What holds of one image, by the definitions of arXiv 2601.06338.

    Only what the caption asks for counts. An object whose colour it does not name may have any
    colour, that of the other object as well, although in training the two colours differ. So with
    one colour named, binding asks for one object of that colour and shape and for one of the
    other shape; with none, for one object of each shape.
    """

    shape: bool
    """Both asked shapes are there, in whatever colour."""
    colour: bool | None
    """Each named colour is there, on whatever shape; None where the caption names none."""
    exist_binding: bool
    """Each asked object is there at least once."""
    binding: bool
    """Each asked object is there exactly once; other objects do not matter."""
    relation_strict: bool
    """Binding, and the caption rule read off the two centres gives the asked relation."""
    relation_loose: bool
    """Binding, and object 1 lies beyond the axis tolerance on each side the relation names;
    cardinal relations ignore the other axis. Strict implies loose."""
    object1: DetectedObject | None
    """Set when binding holds, as is `object2`."""
    object2: DetectedObject | None


def score_images(images: Floats, captions: Sequence[Caption], spec: TaskSpec) -> list[ImageScore]:
    """One score per image of [sample, y, x, rgb], see `score_caption`."""
    return [
        score_caption(image, caption, spec) for image, caption in zip(images, captions, strict=True)
    ]


def score_caption(image: Floats, caption: Caption, spec: TaskSpec) -> ImageScore:
    """How an image [y, x, rgb] in [0, 1] meets what its caption asks for.

    Raises:
        ValueError: the image is not of the task's canvas.
    """
    return score_image(image, caption.pair, caption.relation, spec, caption.colours_named)


def score_image(
    image: Floats,
    pair: int,
    relation: str,
    spec: TaskSpec,
    colours_named: tuple[bool, bool] = (True, True),
) -> ImageScore:
    """How an image [y, x, rgb] in [0, 1] shows a pair of objects in a relation.

    Args:
        image: the picture.
        pair: index into `OBJECT_PAIRS`.
        relation: one of `RELATIONS`.
        spec: the task the image belongs to.
        colours_named: whether the colours of object 1 and of object 2 are asked for.

    Raises:
        ValueError: the image is not of the task's canvas.
    """
    found = detect(image, spec)
    wanted = [
        (colour if named else None, shape)
        for (colour, shape), named in zip(OBJECT_PAIRS[pair], colours_named, strict=True)
    ]
    matches = [
        [item for item in found if item.shape == shape and colour in (None, item.colour)]
        for colour, shape in wanted
    ]
    binding = all(len(match) == 1 for match in matches)
    object1, object2 = (match[0] if binding else None for match in matches)
    strict = loose = False
    if object1 is not None and object2 is not None:
        dx, dy = np.subtract(object1.centre, object2.centre)
        strict, loose = _relation_holds(dx, dy, relation, spec.axis_tolerance)
    colours = {colour for colour, _ in wanted if colour is not None}
    return ImageScore(
        shape={shape for _, shape in wanted} <= {item.shape for item in found},
        colour=colours <= {item.colour for item in found} if colours else None,
        exist_binding=all(matches),
        binding=binding,
        relation_strict=strict,
        relation_loose=loose,
        object1=object1,
        object2=object2,
    )


def shows_relation(score: ImageScore, relation: str, spec: TaskSpec) -> bool:
    """Whether the objects that were asked for are there, and loosely in this relation."""
    if score.object1 is None or score.object2 is None:
        return False
    dx, dy = np.subtract(score.object1.centre, score.object2.centre)
    return _relation_holds(dx, dy, relation, spec.axis_tolerance)[1]


def detect(image: Floats, spec: TaskSpec) -> list[DetectedObject]:
    """The red and the blue objects of an image [y, x, rgb] in [0, 1].

    Where the colours touch, the one that explains the image better on top of the other counts as
    on top: its shapes must be whole, those of the other colour may be hidden in part, and pieces
    that one shape explains together are one object. What shows less than `MIN_AREA` is dropped.

    Raises:
        ValueError: the image is not of the task's canvas.
    """
    if image.shape != (spec.canvas, spec.canvas, 3):
        raise ValueError(
            f"an image of {spec.canvas} x {spec.canvas} px in RGB is needed, got {image.shape}"
        )
    readings = [
        [found for layer in layers for found in _objects(layer, spec)]
        for layers in _readings(_unmix(image))
    ]
    return max(readings, key=lambda found: fmean([each.fit for each in found] or [0]))


def region_weights(score: ImageScore, spec: TaskSpec) -> Floats:
    """Weights [region, y, x] of object 1, object 2 and background; they sum to 1 at every pixel.

    Raises:
        ValueError: the image has no unique binding, or is of another canvas than the task's.
    """
    if score.object1 is None or score.object2 is None:
        raise ValueError("regions are defined only where each asked object is there exactly once")
    objects = np.stack([score.object1.mask, score.object2.mask])
    if objects.shape[1:] != (spec.canvas, spec.canvas):
        raise ValueError(f"the task has {spec.canvas} px, the scored image {objects.shape[1:]}")
    return np.concatenate([objects, 1 - objects.sum(axis=0, keepdims=True)])


def pool_to_grid(weights: Floats, patch: int) -> Floats:
    """Mean weight [region, token] of every image token; tokens are row-major patches.

    Raises:
        ValueError: the patch does not divide the image.
    """
    regions, height, width = weights.shape
    if height % patch or width % patch:
        raise ValueError(f"patches of {patch} px do not tile an image of {width} x {height} px")
    tiles = weights.reshape(regions, height // patch, patch, width // patch, patch)
    pooled: Floats = tiles.mean(axis=(2, 4)).reshape(regions, -1)
    return pooled


def _relation_holds(dx: float, dy: float, relation: str, tolerance: int) -> tuple[bool, bool]:
    """Whether an offset centre1 - centre2, pixels, has the relation: strictly, and loosely."""
    label = classify_relation(torch.tensor([dx, dy]), tolerance)
    strict = RELATIONS[int(label)] == relation
    towards = RELATION_DIRECTIONS[relation]
    beyond = all(
        sign == 0 or np.sign(sign) * offset > tolerance
        for sign, offset in zip(towards, (dx, dy), strict=True)
    )
    # The caption rule calls two centres within the tolerance on both axes above or below, which
    # the sign test alone would refuse.
    return strict, strict or beyond


def _unmix(image: Floats) -> Floats:
    """Share [colour, y, x] of red and of blue at every pixel; together at most 1.

    Least squares over blends grey + red share + blue share, shares clipped to what is possible;
    pixels that no blend comes near have none of either.
    """
    tint = np.array([COLOUR_RGB[colour] for colour in COLOURS], np.float32) - BACKGROUND
    offset = image.astype(np.float32) - BACKGROUND
    share: Floats = offset @ np.linalg.pinv(tint)
    share = share.clip(0, 1)
    share /= np.maximum(share.sum(axis=-1, keepdims=True), 1)
    residual = np.linalg.norm(offset - share @ tint, axis=-1)
    share[residual > MAX_RESIDUAL] = 0
    solid = ((share - SOLID) / (1 - 2 * SOLID)).clip(0, 1)
    return np.ascontiguousarray(np.moveaxis(solid, -1, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One colour of an image, read as lying on top of the other colour or below it."""

    colour: str
    cover: Floats
    """[y, x] visible coverage."""
    unhidden: Floats
    """[y, x] share of every pixel that the other colour leaves open; ones for a layer on top."""
    cut_zone: Mask
    """[y, x] where the other colour may cut an object in two."""


def _readings(cover: Floats) -> Iterator[tuple[_Layer, _Layer]]:
    """The orders in which the two colours may have been painted: one if they do not touch."""
    near = [ndimage.binary_dilation(share > 0.5, iterations=_SOFT_EDGE) for share in cover]
    for top in range(2 if (near[0] & near[1]).any() else 1):
        below = 1 - top
        yield (
            _Layer(COLOURS[top], cover[top], np.ones_like(cover[top]), np.zeros_like(near[top])),
            _Layer(COLOURS[below], cover[below], 1 - cover[top], near[top]),
        )


def _objects(layer: _Layer, spec: TaskSpec) -> Iterator[DetectedObject]:
    """The objects of a layer, the largest visible piece first."""
    templates = _templates(spec.radius, spec.canvas)
    labels, count = ndimage.label(layer.cover > 0.5)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    order = 1 + np.argsort(-areas[1:], kind="stable")
    pieces = [labels == index for index in order if areas[index] >= _MIN_PIECE * spec.radius**2]
    while pieces:
        outlines = [
            outline
            for outline in _wholes(pieces, layer, reach=2 * max(SIZES) * spec.radius + 1)
            if outline.sum() >= MIN_AREA * spec.radius**2
            and layer.cover[outline].mean() >= MIN_PURITY
        ]
        pieces = pieces[1:]
        if outlines:
            matches = [(_match(outline, layer, templates), outline) for outline in outlines]
            found, whole = max(matches, key=lambda match: match[0].fit)
            pieces = [piece for piece in pieces if not (piece & whole).any()]
            yield found


def _wholes(pieces: Sequence[Mask], layer: _Layer, *, reach: float) -> Iterator[Mask]:
    """The first piece alone, then with every choice of pieces that may have been cut off it."""
    first, *others = pieces
    cut = []
    if (first & layer.cut_zone).any():
        cut = [
            piece
            for piece in others
            if (piece & layer.cut_zone).any() and max(_extent(first | piece)) <= reach
        ][:_MAX_CUTS]
    for count in range(len(cut) + 1):
        for chosen in combinations(cut, count):
            yield np.logical_or.reduce([first, *chosen])


def _extent(mask: Mask) -> tuple[int, int]:
    """Height and width of the box around a mask, pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def _match(outline: Mask, layer: _Layer, templates: "_Templates") -> DetectedObject:
    """The best shape for a piece of a layer, by size, kind and centre.

    With piece V, template T and unhidden share W the fit is I / (sum (TW)^2 + sum V^2 - I) where
    I = sum TWV: intersection over union for sharp masks, and 1 only where TW = V.
    """
    halo = ndimage.binary_dilation(outline, iterations=_SOFT_EDGE)
    foreign = (layer.cover > 0.5) & ~outline
    piece = np.where(halo & ~foreign, layer.cover, np.float32(0))
    best = (-1.0, 0, 0, 0, 0)
    for sizes in (slice(0, 1), slice(1, None)):
        shared = templates.correlate(piece * layer.unhidden, sizes, power=1)
        energy = templates.correlate(layer.unhidden**2, sizes, power=2)
        fits = shared / (energy + (piece**2).sum() - shared)
        size, shape, y, x = np.unravel_index(fits.argmax(), fits.shape)
        best = max(best, (float(fits[size, shape, y, x]), sizes.start + size, shape, x, y))
        if best[0] >= CLEAR_FIT:
            break
    fit, size, shape, x, y = best
    known = fit >= MIN_FIT and abs(SIZES[size] - 1) <= SIZE_TOLERANCE + 1e-9
    return DetectedObject(
        colour=layer.colour,
        shape=SHAPES[shape] if known else None,
        centre=(float(x), float(y)),
        mask=piece,
        fit=fit,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Templates:
    """The three shapes in all sizes, ready for correlation at every whole-pixel centre."""

    side: int
    """Side of the padded transform, so that nothing wraps round."""
    spectra: npt.NDArray[np.complex64]
    """[power, size, shape, fy, fx] conjugate transforms of the coverage and of its square."""

    def correlate(self, field: Floats, sizes: slice, *, power: int) -> Floats:
        """Correlation [size, shape, y, x] of a field [y, x] with coverages to that power."""
        height, width = field.shape
        spectrum = fft.rfft2(field, s=(self.side, self.side))
        full: Floats = fft.irfft2(
            spectrum * self.spectra[power - 1, sizes], s=(self.side, self.side)
        )
        return full[..., :height, :width]


@lru_cache(maxsize=8)
def _templates(radius: int, canvas: int) -> _Templates:
    reach = ceil(2 * max(SIZES) * radius / sqrt(3)) + 1
    centre = torch.full((len(SHAPES), 2), float(reach))
    shapes = np.stack(
        [
            coverage(torch.arange(len(SHAPES)), centre, size * radius, 2 * reach).numpy()
            for size in SIZES
        ]
    )
    side = fft.next_fast_len(canvas + reach, real=True)
    padded = np.zeros((2, *shapes.shape[:2], side, side), np.float32)
    padded[..., : 2 * reach, : 2 * reach] = shapes, shapes**2
    return _Templates(side, np.conj(fft.rfft2(np.roll(padded, (-reach, -reach), axis=(-2, -1)))))
