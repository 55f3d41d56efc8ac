"""The operators on Triton: what they take, on which devices, and running them."""

from contextlib import nullcontext
from functools import cache
from typing import Final

import torch
import triton
from torch import Tensor

from attnsearch_kernels.contract import MapStatistics, SketchedAttention
from attnsearch_kernels.triton.configurations import (
    DTYPES,
    MAX_CHANNELS,
    Configuration,
    Kernel,
    choose,
    serves,
)
from attnsearch_kernels.triton.launch import Launch, plan_attention, plan_given_lse

MAX_COLUMNS: Final = 64
MAX_ROLES: Final = 16
"""More would not fit the shared memory of every chip in the table."""
INTERPRETED_ARCHITECTURE: Final = "sm_90"


def interpreting() -> bool:
    """Whether Triton was told to run kernels in Python, on the CPU (`TRITON_INTERPRET=1`)."""
    return bool(triton.knobs.runtime.interpret)


@cache
def architecture_of(device: torch.device) -> str:
    """The name of a device's architecture, `sm_90` or `gfx942`."""
    if device.type != "cuda":
        return INTERPRETED_ARCHITECTURE
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.partition(":")[0]
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def why_not(device: torch.device) -> str | None:
    """Why Triton cannot serve a device; None if it can."""
    if device.type == "cuda":
        architecture = architecture_of(device)
        return None if serves(architecture) else f"its table has no rows for {architecture}"
    if interpreting():
        return None
    return f"the query is on {device.type} and TRITON_INTERPRET=1 is not set"


def sketch_attention_triton(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
    kernel: Kernel | None = None,
) -> SketchedAttention:
    """Sketch attention by the fused or the long kernel; arguments as in `sketch_attention`.

    The output has the memory order of the query, so that a model that split heads by a view
    joins them by one. `kernel` overrides the choice by shape.
    """
    if interpreting() and query.dtype == torch.bfloat16:
        # Triton's interpreter computes bfloat16 wrongly and without a word.
        query32, key32, value32 = (x.float() for x in (query, key, value))
        result = sketch_attention_triton(
            query32, key32, value32, roles, basis, scale=scale, key_mask=key_mask, kernel=kernel
        )
        return result._replace(output=result.output.to(query.dtype))
    result, launches = plan_attention(
        query,
        key,
        value,
        roles,
        basis,
        scale=scale,
        key_mask=key_mask,
        architecture=architecture_of(query.device),
        kernel=kernel,
    )
    _start(launches, query.device)
    return result


def sketch_given_lse_triton(
    query: Tensor,
    key: Tensor,
    roles: Tensor,
    basis: Tensor,
    lse: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
) -> MapStatistics:
    """Statistics of a map whose log-sum-exp is known; arguments as in `sketch_given_lse`."""
    if interpreting() and query.dtype == torch.bfloat16:
        query, key = query.float(), key.float()
    result, launches = plan_given_lse(
        query,
        key,
        roles,
        basis,
        lse,
        scale=scale,
        key_mask=key_mask,
        architecture=architecture_of(query.device),
    )
    _start(launches, query.device)
    return result


def configuration_of(query: Tensor, key: Tensor) -> Configuration:
    """The row of the table that serves a call: which kernel runs, in which tiles.

    Raises:
        ValueError: no row serves it.
    """
    return choose(
        architecture_of(query.device), query.dtype, channels=query.shape[3], keys=key.shape[2]
    )


def unsupported(dtype: torch.dtype, *, channels: int, columns: int, roles: int) -> str | None:
    """Why the kernels cannot take a call of this shape; None if they can."""
    if dtype not in DTYPES:
        return f"it takes float16, bfloat16 and float32, not {dtype}"
    for name, size, limit in (
        ("channels", channels, MAX_CHANNELS),
        ("basis columns", columns, MAX_COLUMNS),
        ("roles", roles, MAX_ROLES),
    ):
        if size > limit:
            return f"it takes at most {limit} {name}, not {size}"
    return None


def _start(launches: list[Launch], device: torch.device) -> None:
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        for launch in launches:
            launch.start()
