"""What a head looks at: its mean map of the relation words, by relation and step."""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr
from PIL import Image, ImageDraw

from attnsearch.aggregate import basis_of
from attnsearch.axes import BASIS, RELATIONS, STEP, Branch, HeadAddress
from attnsearch.errors import ConfigError

_CELL: Final = 48
"""Side of a map in the picture, pixels."""
_GAP: Final = 4
_LABEL: Final = 84
"""Width of the column of relation names, pixels."""
_COLOURS: Final = ((0, 0, 0), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Anchors from no attention to the largest, dark to bright."""


def write(path: Path, scan: xr.Dataset, address: HeadAddress) -> None:
    """One PNG: a row per relation, a column per step, the mean map over prompts and seeds.

    Brightness is attention to the relation words, from 0 to the largest of the picture, which is
    written in the corner.

    Raises:
        ConfigError: the file cannot be written.
    """
    maps, relations = _mean_maps(scan, address)
    rows, steps = maps.shape[:2]
    brightest = maps.max() or 1.0  # a head that never looks at these words stays dark
    pitch = _CELL + _GAP
    sheet = Image.new("RGB", (_LABEL + steps * pitch, 20 + rows * pitch), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((2, 2), f"{address}  max {maps.max():.2f}", fill="black", font_size=11)
    for step in range(steps):
        pen.text((_LABEL + step * pitch + 2, 4), f"step {step}", fill="black", font_size=10)
    for row, relation in enumerate(relations):
        top = 20 + row * pitch
        pen.text((2, top + _CELL // 2 - 6), relation.replace("_", " "), fill="black", font_size=11)
        for step in range(steps):
            picture = Image.fromarray(_coloured(maps[row, step] / brightest))
            sheet.paste(
                picture.resize((_CELL, _CELL), Image.Resampling.NEAREST),
                (_LABEL + step * pitch, top),
            )
    try:
        sheet.save(path, format="PNG")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _mean_maps(scan: xr.Dataset, address: HeadAddress) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Mean maps [relation, step, y, x], never negative, and the relations present."""
    sketch = scan["sketch"].sel(
        branch=str(Branch.COND), role="relation", layer=address.layer, head=address.head
    )
    values = sketch.transpose("sample", STEP, BASIS).astype(np.float32).to_numpy()
    asked = scan["relation"].to_numpy().astype(object)
    present = [relation for relation in RELATIONS if (asked == relation).any()]
    means = np.stack([values[asked == relation].mean(axis=0) for relation in present])
    maps = (means @ basis_of(scan)).reshape(*means.shape[:2], *scan.attrs["grid"])
    return np.maximum(maps, 0), present


def _coloured(strength: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Strengths [y, x] in [0, 1] as colours [y, x, rgb]."""
    anchors = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(strength, anchors, channel) for channel in zip(*_COLOURS, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
