"""What sketch attention takes, what it gives back, and who computes it.

The types and checks every backend shares. No arithmetic on maps here.
"""

from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor


class SketchedAttention(NamedTuple):
    """The result of attention and the statistics of its map A `[B, H, N, M]`.

    Statistics are float32 whatever the inputs. Where no key may be attended, all are zero.
    """

    output: Tensor
    """`A V`, `[B, H, N, D]`, dtype of the query."""
    sketch: Tensor
    """`basis.T A roles`, `[B, H, F, G]`; between -sqrt(N) and sqrt(N) for an orthonormal basis."""
    entropy: Tensor
    """`-sum_j A_ij log A_ij`, `[B, H, N]`, in nats, between 0 and log M."""
    peak: Tensor
    """`max_j A_ij`, `[B, H, N]`, between 1 / M and 1."""
    energy: Tensor
    """`sum_i (A roles)_ig ** 2`, `[B, H, G]`, between 0 and N."""


class MapStatistics(NamedTuple):
    """The statistics of `SketchedAttention` without its output."""

    sketch: Tensor
    entropy: Tensor
    peak: Tensor
    energy: Tensor


class Backend(StrEnum):
    """Which implementation computes a call."""

    AUTO = "auto"
    """The fastest one that takes the call."""
    REFERENCE = "reference"
    """The definition, in float64; slow."""
    TORCH = "torch"
    """Plain torch in the [key, query] layout: tuned for CPUs, runs on every device."""
    TRITON = "triton"
    """The fused and the long kernel, for CUDA and ROCm; interpreted if TRITON_INTERPRET=1."""


def check_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    key_mask: Tensor | None,
) -> None:
    """Refuses tensors whose sizes, dtypes or devices disagree; all as in `sketch_attention`.

    Raises:
        ValueError: names the tensor, what it has and what was expected.
    """
    if query.dim() != 4:
        raise ValueError(f"query must be [B, H, N, D], not {_shape(query)}")
    batch, heads, tokens, channels = query.shape
    if key.dim() != 4:
        raise ValueError(f"key must be [B, H, M, D], not {_shape(key)}")
    keys = key.shape[2]
    expected_key = (batch, heads, keys, channels)
    if tuple(key.shape) != expected_key:
        raise ValueError(f"key is {_shape(key)} where the query asks for {list(expected_key)}")
    if tuple(value.shape) != expected_key:
        raise ValueError(f"value is {_shape(value)} where the key asks for {list(expected_key)}")
    if roles.dim() != 3 or tuple(roles.shape[:2]) != (batch, keys):
        raise ValueError(f"roles is {_shape(roles)}, expected [{batch}, {keys}, G]")
    if basis.dim() != 2 or basis.shape[0] != tokens:
        raise ValueError(f"basis is {_shape(basis)}, expected [{tokens}, F]")
    _check_types(query, key, value, roles, basis, key_mask)
    if key_mask is not None and tuple(key_mask.shape) != (batch, keys):
        raise ValueError(f"key_mask is {_shape(key_mask)}, expected [{batch}, {keys}]")


def empty_statistics(query: Tensor, roles: Tensor, basis: Tensor) -> MapStatistics:
    """Room for the statistics of a call, not yet written."""
    batch, heads, tokens, _ = query.shape
    groups, columns = roles.shape[2], basis.shape[1]
    shapes = (
        (batch, heads, columns, groups),
        (batch, heads, tokens),
        (batch, heads, tokens),
        (batch, heads, groups),
    )
    return MapStatistics(
        *(torch.empty(shape, dtype=torch.float32, device=query.device) for shape in shapes)
    )


def row_major(tensor: Tensor) -> Tensor:
    """`[B, H, N, D]` as the Triton kernels address it: copied only if it must be.

    Channels lie side by side, and the rows of a map within 2^31 elements.
    """
    if tensor.stride(3) == 1 and tensor.shape[2] * tensor.stride(2) < 2**31:
        return tensor
    return tensor.contiguous()


def _check_types(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    key_mask: Tensor | None,
) -> None:
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(
            f"query, key and value must share a dtype, not {query.dtype}, {key.dtype}, "
            f"{value.dtype}"
        )
    named = {"query": query, "key": key, "value": value, "roles": roles, "basis": basis}
    for name, tensor in named.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be of a float dtype, not {tensor.dtype}")
        if tensor.device != query.device:
            raise ValueError(f"{name} is on {tensor.device}, the query on {query.device}")
    if key_mask is not None:
        if key_mask.dtype != torch.bool:
            raise ValueError(f"key_mask must be bool, not {key_mask.dtype}")
        if key_mask.device != query.device:
            raise ValueError(f"key_mask is on {key_mask.device}, the query on {query.device}")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
