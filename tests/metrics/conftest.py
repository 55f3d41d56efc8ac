"""Scans made by hand, without a model."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from attnsearch.axes import REGIONS, ROLES, SKETCH_AXES
from attnsearch.task.captions import Caption, grid_captions
from attnsearch.task.spec import PRESETS
from attnsearch_kernels import dct2

GRID = 8

Maps = Callable[[Caption, int], npt.NDArray[np.float64]]
"""From a caption and a sample number to A Gamma [head, role, image token]."""


@pytest.fixture
def scan_of() -> Callable[..., xr.Dataset]:
    """Builds a scan of one layer and one step over the small prompt grid, from maps."""

    def build(maps: Maps, seeds: int = 1, order: int = GRID) -> xr.Dataset:
        captions = grid_captions(PRESETS["small"]) * seeds
        basis = dct2(GRID, GRID, order).numpy()
        role_maps = np.stack([maps(caption, index) for index, caption in enumerate(captions)])
        sketch = (role_maps @ basis)[:, None, None, None].astype(np.float32)
        assert sketch.shape[-2] == len(ROLES)
        samples = len(captions)
        return xr.Dataset(
            {
                "sketch": (SKETCH_AXES, sketch),
                "region_coefficients": (
                    ("sample", "region", "basis"),
                    np.full((samples, len(REGIONS), order**2), np.nan, dtype=np.float32),
                ),
            },
            coords={
                "prompt": ("sample", np.array([c.text for c in captions], dtype=object)),
                "relation": ("sample", np.array([c.relation for c in captions], dtype=object)),
                "relation_words": (
                    "sample",
                    np.array([" ".join(c.direction_words) for c in captions], dtype=object),
                ),
                "branch": ["cond"],
                "role": list(ROLES),
                "region": list(REGIONS),
                "ky": ("basis", np.arange(order**2) // order),
                "kx": ("basis", np.arange(order**2) % order),
            },
            attrs={"grid": [GRID, GRID]},
        ).chunk({"sample": 32})

    return build
