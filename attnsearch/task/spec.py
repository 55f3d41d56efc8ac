"""The two-object task as data: canvas, sizes, phrases, and which combinations are held out.

A `TaskSpec` travels inside every checkpoint, so that evaluation, scans and plots of a model
always speak of the task it was trained on. Two presets: `paper` follows the generator of
arXiv 2601.06338 (commit of its training set), `small` fits CPUs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from attnsearch.axes import RELATIONS
from attnsearch.errors import ConfigError
from attnsearch.intake import check_fields

SHAPES: Final = ("triangle", "circle", "square")
COLOURS: Final = ("red", "blue")

OBJECT_PAIRS: Final = tuple(
    ((colour1, shape1), (colour2, shape2))
    for colour1 in COLOURS
    for colour2 in COLOURS
    if colour1 != colour2
    for shape1 in SHAPES
    for shape2 in SHAPES
    if shape1 != shape2
)
"""The twelve ordered pairs of objects: colours always differ, shapes always differ."""

PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "above": ("above", "directly above", "higher than"),
    "below": ("below", "directly below", "lower than"),
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "upper_left": (
        "to the upper left of",
        "above and to the left of",
        "diagonally up and left from",
    ),
    "upper_right": (
        "to the upper right of",
        "above and to the right of",
        "diagonally up and right from",
    ),
    "lower_left": (
        "to the lower left of",
        "below and to the left of",
        "diagonally down and left from",
    ),
    "lower_right": (
        "to the lower right of",
        "below and to the right of",
        "diagonally down and right from",
    ),
}
"""The paper's 22 relation phrases; the first of each relation is the short one."""

NAMINGS: Final[Mapping[str, tuple[bool, bool]]] = {
    "all colours": (True, True),
    "no colour 1": (False, True),
    "no colour 2": (True, False),
    "no colours": (False, False),
}
"""In words, which colours a caption names: that of object 1, that of object 2."""
GRIDS: Final[Mapping[str, str]] = {
    "grid" if all(named) else f"grid-{naming.replace(' ', '-')}": naming
    for naming, named in NAMINGS.items()
}
"""Prompt grids of the task by their names on the command line: which colours they name."""


class PhraseSet(StrEnum):
    """Which wordings of a relation captions draw from."""

    SHORT = "short"
    ALL = "all"


class Layout(StrEnum):
    """How the two centres are drawn."""

    UNIFORM = "uniform"
    """Both centres uniform on the canvas, the relation read off: 79 % diagonals (the paper)."""
    BALANCED = "balanced"
    """The eight relations equally frequent, both centres uniform within each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One two-object task.

    Raises:
        ConfigError: a value is of another type or out of range, or the objects do not fit the
            canvas.
    """

    canvas: int
    """Side of the square image, pixels."""
    radius: int
    """Half the side of the square, radius of the circle, half the side of the triangle; pixels."""
    axis_tolerance: int
    """An offset of at most this many pixels counts as none along that axis."""
    layout: Layout
    min_distance: float
    """Smallest distance of the two centres, in radii; 2 and more leaves circles disjoint."""
    phrases: PhraseSet
    colour_dropout: float
    """Probability that a colour word is left out of a training caption, each word on its own."""
    text_length: int
    """Tokens a caption is padded to under random embeddings; a pretrained encoder's tokens may be
    more."""
    held_out_seed: int | None
    """Seed of the held-out (shapes, colours, relation) combinations; None holds nothing out."""

    def __post_init__(self) -> None:
        check_fields(self, canvas=2**14, text_length=2**12)
        if self.text_length < 1:
            raise ConfigError(f"text_length must be at least 1, not {self.text_length}")
        if self.radius < 1 or self.canvas < 4 * (self.radius + 1):
            raise ConfigError(
                f"radius {self.radius} px does not fit twice on a canvas of {self.canvas} px"
            )
        if not 0 <= self.axis_tolerance < self.radius:
            raise ConfigError(
                f"axis_tolerance {self.axis_tolerance} px must lie between 0 and the radius"
            )
        if not 0 <= self.colour_dropout <= 1:
            raise ConfigError(f"colour_dropout {self.colour_dropout} is not a probability")
        if not 0 <= self.min_distance * self.radius <= self.span:
            raise ConfigError(
                f"min_distance {self.min_distance} radii exceeds what the canvas allows"
            )

    @property
    def span(self) -> int:
        """Largest offset of two centres along one axis, pixels."""
        return self.canvas - 2 * (self.radius + 1)


PRESETS: Final[dict[str, TaskSpec]] = {
    "paper": TaskSpec(
        canvas=128,
        radius=16,
        axis_tolerance=5,
        layout=Layout.UNIFORM,
        min_distance=0.0,
        phrases=PhraseSet.ALL,
        colour_dropout=0.5,
        text_length=20,
        held_out_seed=None,
    ),
    "small": TaskSpec(
        canvas=32,
        radius=6,
        axis_tolerance=2,
        layout=Layout.BALANCED,
        min_distance=0.9,
        phrases=PhraseSet.SHORT,
        colour_dropout=0.0,
        text_length=12,
        held_out_seed=0,
    ),
}


def held_out_combinations(spec: TaskSpec) -> frozenset[tuple[int, int]]:
    """The (object pair, relation) index pairs kept out of training.

    Every ordered pair of objects loses exactly one relation and the losses are spread over the
    relations as evenly as twelve over eight allows, so each object and each relation is still
    seen in many other combinations: what is tested is composition.
    """
    if spec.held_out_seed is None:
        return frozenset()
    # A private linear congruential shuffle: the split must stay the same for ever, and neither
    # NumPy nor torch promises its streams across versions.
    order = list(range(len(RELATIONS)))
    state = spec.held_out_seed
    for last in range(len(order) - 1, 0, -1):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        pick = (state >> 33) % (last + 1)
        order[last], order[pick] = order[pick], order[last]
    return frozenset((pair, order[pair % len(order)]) for pair in range(len(OBJECT_PAIRS)))
