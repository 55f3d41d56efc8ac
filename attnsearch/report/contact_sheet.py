"""Generated images side by side, each above the caption it was asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from attnsearch.errors import ConfigError
from attnsearch.task.captions import Caption

_CELL: Final = 128
"""Side of an image on the sheet, pixels."""
_LINE: Final = 12
"""Height of a line of text, pixels."""
_COLUMNS: Final = 8


def write(path: Path, images: npt.NDArray[np.float32], captions: Sequence[Caption]) -> None:
    """Write images [sample, y, x, rgb] in [0, 1] and their captions as one PNG, eight a row.

    What a model with broken weights left undefined is black.

    Raises:
        ConfigError: the file cannot be written.
    """
    height = _CELL + 3 * _LINE
    rows = -(-len(images) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _CELL, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = index % _COLUMNS * _CELL, index // _COLUMNS * height
        picture = Image.fromarray(np.round(np.nan_to_num(image) * 255).astype(np.uint8))
        sheet.paste(picture.resize((_CELL - 4, _CELL - 4), Image.Resampling.NEAREST), (x, y))
        for line, text in enumerate(_lines(caption)):
            pen.text((x, y + _CELL - 4 + line * _LINE), text, fill="black", font_size=10)
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _lines(caption: Caption) -> tuple[str, str, str]:
    """First object, relation, second object."""
    words = caption.words
    first = words.index("is")
    last = max(i for i, role in enumerate(caption.roles) if role in ("relation", "filler")) + 1
    return " ".join(words[:first]), " ".join(words[first:last]), " ".join(words[last:])
