"""Scores of heads as grids, layers by heads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from attnsearch.axes import HeadAddress
from attnsearch.errors import ConfigError

_CELL: Final = 44
_MARGIN: Final = 34
_TITLE: Final = 22
_COLOURS: Final = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
"""Anchors from -1 over 0 to 1."""


def colour_of(strength: float) -> tuple[int, int, int]:
    """The colour of a score, relative to the largest: blue below zero, red above."""
    anchors = np.linspace(-1, 1, len(_COLOURS))
    red, green, blue = (
        round(float(np.interp(strength, anchors, channel)))
        for channel in zip(*_COLOURS, strict=True)
    )
    return red, green, blue


def letters_on(colour: tuple[int, int, int]) -> str:
    """The colour of letters that can be read on another."""
    return "black" if sum(colour) > 384 else "white"


def write(path: Path, grids: Mapping[str, Mapping[HeadAddress, float]], title: str) -> None:
    """One PNG with a grid for every name; colours are relative to the largest score of all.

    Raises:
        ConfigError: the file cannot be written.
    """
    largest = max(abs(score) for grid in grids.values() for score in grid.values()) or 1.0
    layers = {name: sorted({head.layer for head in grid}) for name, grid in grids.items()}
    heads = {name: sorted({head.head for head in grid}) for name, grid in grids.items()}
    widest = max(map(len, heads.values()))
    height = sum(2 * _TITLE + _CELL * len(rows) for rows in layers.values())
    sheet = Image.new("RGB", (max(320, _MARGIN + _CELL * widest), _TITLE + height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((4, 4), title, fill="black", font_size=12)
    top = _TITLE
    for name, grid in grids.items():
        pen.text((4, top + 4), name, fill="black", font_size=12)
        for column, head in enumerate(heads[name]):
            left = _MARGIN + column * _CELL
            pen.text((left + 10, top + _TITLE + 6), f"H{head}", fill="black", font_size=11)
        for row, layer in enumerate(layers[name]):
            y = top + 2 * _TITLE + row * _CELL
            pen.text((6, y + 14), f"L{layer}", fill="black", font_size=11)
            for column, head in enumerate(heads[name]):
                score = grid.get(HeadAddress(layer, head))
                if score is None:
                    continue
                x = _MARGIN + column * _CELL
                colour = colour_of(score / largest)
                pen.rectangle((x, y, x + _CELL - 2, y + _CELL - 2), fill=colour)
                pen.text((x + 4, y + 14), f"{score:+.2f}", fill=letters_on(colour), font_size=11)
        top += 2 * _TITLE + _CELL * len(layers[name])
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
