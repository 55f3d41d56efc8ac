"""Quantities by the names that a command line knows them under."""

import numpy as np
import xarray as xr

from attnsearch.aggregation import Attention, Quantity, RegionScore, Stored
from attnsearch.axes import SAMPLE, STEP, Branch
from attnsearch.errors import MetricError
from attnsearch.metrics.questions import Template


def quantity_called(text: str, scan: xr.Dataset, branch: Branch = Branch.COND) -> Quantity:
    """The quantity of a scan that a text names.

    `region -> role` is a template, the name of an array is the array, anything else are roles
    joined by `+`, of which the coefficients of their attention are taken.

    Raises:
        MetricError: it is a template that is none.
    """
    if "->" in text:
        template = Template.parse(text)
        return RegionScore(region=template.region, roles=template.roles, branch=branch)
    if text.strip() in scan.data_vars:
        return Stored(name=text.strip(), branch=branch)
    return Attention(roles=tuple(role.strip() for role in text.split("+")), branch=branch)


def usual_axes(values: xr.DataArray) -> tuple[str, ...]:
    """What is kept of a quantity unless something else is asked for: each head, each number."""
    return tuple(str(name) for name in values.dims if name not in (SAMPLE, STEP))


def bounds_of(quantity: Quantity, scan: xr.Dataset) -> tuple[float, float]:
    """Between which numbers the values of a quantity must lie.

    Raises:
        MetricError: they may be any.
    """
    if isinstance(quantity, Stored):
        if quantity.name == "entropy":
            return 0.0, float(np.log(scan.attrs["keys"]))
        if quantity.name == "energy":
            return 0.0, float(np.prod(scan.attrs["grid"]))
        if quantity.name == "peak" or scan[quantity.name].dtype.kind == "b":
            return 0.0, 1.0
    raise MetricError("quantiles are known of entropy, peak, energy and scores, which have bounds")
