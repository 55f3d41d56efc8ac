"""All heads on a plane."""

import numpy as np
import xarray as xr

from attnsearch.clustering.signatures import Floats


def landscape(vectors: Floats, signatures: xr.Dataset) -> xr.Dataset:
    """Where heads lie on the plane of largest variance: `x` and `y` (address).

    Principal components of the `vectors` [head, column] that `signatures` was made into; `shares`
    of the attributes are those of variance that x and y explain. The sign of each axis is that of
    its largest entry.
    """
    centred = vectors - vectors.mean(axis=0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(right[np.arange(2), abs(right[:2]).argmax(axis=1)])
    x, y = (left[:, :2] * values[:2] * signs).T
    shares = values[:2] ** 2 / max(float((values**2).sum()), np.finfo(float).tiny)
    labels = {key: signatures[key] for key in ("address", "model", "layer", "head")}
    return xr.Dataset(
        {"x": ("address", x), "y": ("address", y)}, coords=labels, attrs={"shares": shares.tolist()}
    )
