"""The definition of sketch attention, in float64. Every other backend is measured against it."""

import torch
from torch import Tensor
from torch.nn import functional

from attnsearch_kernels.contract import MapStatistics, SketchedAttention


def reference_float64(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
) -> SketchedAttention:
    """Sketch attention with every result in float64; arguments as in `sketch_attention`."""
    query, key, value, roles, basis = (x.double() for x in (query, key, value, roles, basis))
    scores = scale * query @ key.mT
    if key_mask is None:
        attention = scores.softmax(-1)
    else:
        attended = key_mask[:, None, None, :]
        lowest = torch.finfo(scores.dtype).min
        attention = scores.masked_fill(~attended, lowest).softmax(-1) * attended
    role_mass = attention @ roles[:, None]
    return SketchedAttention(
        output=attention @ value,
        sketch=basis.T @ role_mass,
        entropy=torch.special.entr(attention).sum(-1),
        # The appended zero is the peak of a row without keys.
        peak=functional.pad(attention, (0, 1)).amax(-1),
        energy=role_mass.square().sum(-2),
    )


def sketch_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
) -> SketchedAttention:
    """`reference_float64` rounded to the dtypes of the contract."""
    exact = reference_float64(query, key, value, roles, basis, scale=scale, key_mask=key_mask)
    statistics = (statistic.float() for statistic in exact[1:])
    return SketchedAttention(exact.output.to(query.dtype), *statistics)


def sketch_given_lse_reference(
    query: Tensor,
    key: Tensor,
    roles: Tensor,
    basis: Tensor,
    lse: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
) -> MapStatistics:
    """Statistics of `exp(scale * query @ key.T - lse)` in float64, rounded to float32."""
    query, key, roles, basis, lse = (x.double() for x in (query, key, roles, basis, lse))
    attended = torch.isfinite(lse)[..., None]
    if key_mask is not None:
        attended = attended & key_mask[:, None, None, :]
    lowest = torch.finfo(torch.float64).min
    scores = (scale * query @ key.mT - lse[..., None]).masked_fill(~attended, lowest)
    attention = scores.exp()
    role_mass = attention @ roles[:, None]
    exact = MapStatistics(
        sketch=basis.T @ role_mass,
        entropy=torch.special.entr(attention).sum(-1),
        peak=functional.pad(attention, (0, 1)).amax(-1),
        energy=role_mass.square().sum(-2),
    )
    return MapStatistics(*(statistic.float() for statistic in exact))
