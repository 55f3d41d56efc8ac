"""Where the objects are in finished images, as weights of the image tokens.

Who finds them is up to the user: a function that looks at an image, or masks saved before. Here
masks become the mean of each token's patch; what they are then used for is said by templates.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.axes import REGION, SAMPLE
from attnsearch.errors import ConfigError
from attnsearch.prompts import Prompt

Floats = npt.NDArray[np.float64]

Segmenter = Callable[[Floats, Prompt], Mapping[str, npt.ArrayLike]]
"""From an image [y, x, rgb] in [0, 1] and its prompt to masks [y, x] in [0, 1] by region; one that
it does not find is left out, or empty."""

Regions = Segmenter | xr.DataArray
"""A function, or saved masks (sample, region, y, x) with names as coordinate `region`; a missing
one is empty or all NaN."""


def pool_regions(
    regions: Regions,
    images: Sequence[Any] | None,
    prompts: Sequence[Prompt],
    grid: tuple[int, int],
) -> tuple[tuple[str, ...], Floats]:
    """Names of the regions, and their weights [sample, region, image token].

    A weight is the mean of the mask over the token's share of the image, in [0, 1]; NaN where a
    region is missing or empty. Mask and image are taken to show the whole grid.

    Raises:
        ConfigError: a function has no images to look at, or there is not one image, or row of
            masks, a sample; something is no image or no mask; no region has a name.
    """
    if isinstance(regions, xr.DataArray):
        found = _saved(regions, len(prompts))
    else:
        found = [
            regions(image, prompt)
            for image, prompt in zip(_pixels(images, len(prompts)), prompts, strict=True)
        ]
    names = tuple(dict.fromkeys(name for masks in found for name in masks))
    if not names:
        raise ConfigError("no region was found in any image")
    return names, pool_masks(found, names, grid)


def pool_masks(
    found: Sequence[Mapping[str, npt.ArrayLike]], names: Sequence[str], grid: tuple[int, int]
) -> Floats:
    """Weights [sample, region, image token] of the masks found in each image; see `pool_regions`.

    Raises:
        ConfigError: something is no mask, or of a region that is not among `names`.
    """
    weights = np.full((len(found), len(names), grid[0] * grid[1]), np.nan)
    for sample, masks in enumerate(found):
        for name, mask in masks.items():
            if name not in names:
                raise ConfigError(
                    f"{name!r} was found, which is none of the regions {', '.join(names)}"
                )
            pooled = pool(_mask(mask, name, sample), grid)
            if pooled.any():
                weights[sample, names.index(name)] = pooled.ravel()
    return weights


def pool(mask: Floats, grid: tuple[int, int]) -> Floats:
    """Mean of a mask [y, x] over the rectangle of each token [height, width] of a grid.

    A pixel that lies under several tokens counts for each with the area that it shares.
    """
    vertical, horizontal = (
        _shares(tokens, pixels) for tokens, pixels in zip(grid, mask.shape, strict=True)
    )
    return vertical @ mask @ horizontal.T


def _shares(tokens: int, pixels: int) -> Floats:
    """Share of each token's length that a pixel covers [token, pixel]; rows sum to one."""
    ends = np.arange(1, tokens + 1)[:, None] / tokens, np.arange(1, pixels + 1) / pixels
    begins = np.arange(tokens)[:, None] / tokens, np.arange(pixels) / pixels
    return np.maximum(np.minimum(*ends) - np.maximum(*begins), 0.0) * tokens


def _saved(masks: xr.DataArray, samples: int) -> list[Mapping[str, npt.ArrayLike]]:
    wanted = (SAMPLE, REGION, "y", "x")
    if set(masks.dims) != set(wanted) or REGION not in masks.coords:
        raise ConfigError(
            f"saved masks have dimensions {', '.join(wanted)} and the coordinate {REGION}, not "
            f"{', '.join(map(str, masks.dims))} and {', '.join(map(str, masks.coords)) or 'none'}"
        )
    if masks.sizes[SAMPLE] != samples:
        raise ConfigError(f"there are masks of {masks.sizes[SAMPLE]} images for {samples} samples")
    names = [str(name) for name in masks[REGION].to_numpy()]
    values = masks.transpose(*wanted).to_numpy().astype(np.float64)
    values[np.isnan(values).all(axis=(2, 3))] = 0
    return [dict(zip(names, rows, strict=True)) for rows in values]


def _pixels(images: Sequence[Any] | None, samples: int) -> list[Floats]:
    if images is None:
        raise ConfigError("a function that finds regions needs images= to look at")
    if len(images) != samples:
        raise ConfigError(f"there are {len(images)} images for {samples} samples, in their order")
    return [_image(image) for image in images]


def _image(image: Any) -> Floats:
    values = np.asarray(image)
    if values.dtype == np.uint8:
        values = values / 255
    if values.ndim != 3 or values.shape[2] != 3 or not _in_unit_range(values):
        raise ConfigError(
            f"an image is a PIL image in RGB, or an array [y, x, rgb] in [0, 1]; this one is "
            f"{values.dtype} of shape {values.shape}"
        )
    return values.astype(np.float64)


def _mask(mask: npt.ArrayLike, name: str, sample: int) -> Floats:
    values = np.asarray(mask)
    if values.ndim != 2 or not values.size or not _in_unit_range(values):
        raise ConfigError(
            f"the mask of {name} in sample {sample} is no array [y, x] in [0, 1]: {values.dtype} "
            f"of shape {values.shape}"
        )
    return values.astype(np.float64)


def _in_unit_range(values: npt.NDArray[Any]) -> bool:
    return values.dtype.kind in "bfiu" and bool(((values >= 0) & (values <= 1)).all())
