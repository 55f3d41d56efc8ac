"""Generated images side by side, each above the caption it was asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from attnsearch.report.figures import new_figure
from attnsearch.task.captions import Caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS: Final = 8
_CELL: Final = 1.16
"""Width of an image and of the gap beside it, inches."""
_LETTERS: Final = 0.34
"""Height of a caption in widths of a cell."""
_SIDE: Final = 0.97
"""Side of an image in widths of a cell."""


def draw(images: npt.NDArray[np.float32], captions: Sequence[Caption]) -> "Figure":
    """Images [sample, y, x, rgb] in [0, 1] and their captions as one figure, eight a row.

    What a model with broken weights left undefined is black.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    columns, pitch = min(_COLUMNS, len(images)), 1 + _LETTERS
    rows = -(-len(images) // _COLUMNS)
    figure = new_figure(_CELL * columns, _CELL * pitch * rows)
    axes = figure.subplots()
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = index % _COLUMNS, index // _COLUMNS * pitch
        axes.imshow(
            np.clip(np.nan_to_num(image), 0, 1),
            extent=(x, x + _SIDE, y + _SIDE, y),
            interpolation="nearest",
        )
        axes.text(x, y + _SIDE, "\n".join(_lines(caption)), va="top", fontsize=6)
    axes.set(xlim=(0, columns), ylim=(rows * pitch, 0))
    axes.set_axis_off()
    return figure


def _lines(caption: Caption) -> tuple[str, str, str]:
    """First object, relation, second object."""
    words = caption.words
    first = words.index("is")
    last = max(i for i, role in enumerate(caption.roles) if role in ("relation", "filler")) + 1
    return " ".join(words[:first]), " ".join(words[first:last]), " ".join(words[last:])
