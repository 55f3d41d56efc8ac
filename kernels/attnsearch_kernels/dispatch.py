"""The operators, each one torch custom op in front of all backends, and which backend runs."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor

from attnsearch_kernels.contract import (
    Backend,
    MapStatistics,
    SketchedAttention,
    check_arguments,
    empty_statistics,
    row_major,
)
from attnsearch_kernels.plain import sketch_attention_plain, sketch_given_lse_plain
from attnsearch_kernels.reference import sketch_attention_reference, sketch_given_lse_reference

# A tuple, because torch.compile does not trace iterating over an enumeration in every version.
_BACKENDS: Final = tuple(each.value for each in Backend)


def sketch_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
    backend: Backend | str = Backend.AUTO,
) -> SketchedAttention:
    """Attention, and the sketch of its map, without the map leaving the operator.

    With `A = softmax(scale * query @ key.T)` over the keys that may be attended, per batch row and
    head: `output = A value`, `sketch = basis.T A roles`, and what `SketchedAttention` says of the
    rest. The softmax and all statistics are float32 or better whatever the inputs. Rows without
    keys (M = 0, or all masked) give zeros. Keys and values that are masked must still be finite.

    For inference: the forward pass runs under autograd, a backward pass through it raises.

    Args:
        query: `[B, H, N, D]`, N image tokens, row-major over the grid; any float dtype.
        key: `[B, H, M, D]`, M text tokens; dtype of the query.
        value: `[B, H, M, D]`; dtype of the query.
        roles: `[B, M, G]`, weight of each token in each role, any float dtype, between -1 and 1
            for the tolerances to hold. When every row sums to one, the sketch summed over roles
            is `basis.T @ ones`. A zero row (an image key of joint attention) takes part in the
            softmax and in no role.
        basis: `[N, F]`, as of `dct2`; any float dtype. Triton rounds it and the roles to float16
            for queries of half precision; handing over float16 saves that step.
        scale: factor on the scores, usually `D ** -0.5`.
        key_mask: `[B, M]` bool, True where the key may be attended; None for all.
        backend: who computes it; `resolve_backend` tells what `auto` means for a call.

    Raises:
        ValueError: sizes, dtypes or devices disagree, or the backend cannot take the call.
    """
    check_arguments(query, key, value, roles, basis, key_mask)
    resolved = resolve_backend(query, roles, basis, backend)
    return SketchedAttention(
        *_sketch_attention(
            query, key, value, roles, basis, key_mask, scale=scale, backend=resolved.value
        )
    )


def sketch_given_lse(
    query: Tensor,
    key: Tensor,
    roles: Tensor,
    basis: Tensor,
    lse: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
    backend: Backend | str = Backend.AUTO,
) -> MapStatistics:
    """The statistics of `sketch_attention` behind an attention that ran elsewhere.

    For FlashAttention, cuDNN or FlexAttention, which return the log-sum-exp of every row. Takes
    one product of query and key and no softmax. Arguments as in `sketch_attention`, and

    Args:
        lse: `[B, H, N]`, `log sum_j exp(scale * query_i . key_j)` over the attended keys, in
            nats; infinite for a row without keys.

    Raises:
        ValueError: as `sketch_attention`, or `lse` is not `[B, H, N]`.
    """
    check_arguments(query, key, key, roles, basis, key_mask)
    if lse.shape != query.shape[:3] or lse.device != query.device:
        found = f"{list(lse.shape)} on {lse.device}"
        raise ValueError(f"lse is {found}, expected {list(query.shape[:3])} on {query.device}")
    resolved = resolve_backend(query, roles, basis, backend)
    return MapStatistics(
        *_sketch_given_lse(
            query, key, roles, basis, lse, key_mask, scale=scale, backend=resolved.value
        )
    )


def resolve_backend(
    query: Tensor, roles: Tensor, basis: Tensor, backend: Backend | str = Backend.AUTO
) -> Backend:
    """The backend that runs a call of these tensors; never `AUTO`.

    The operators dispatch on this very answer, so asking tells what runs. `auto` is Triton on a
    GPU that its table knows, for the dtypes and sizes its kernels take, and plain torch elsewhere.

    Raises:
        ValueError: the backend is unknown, or Triton was asked for and cannot take the call.
    """
    if backend not in _BACKENDS:
        known = ", ".join(_BACKENDS)
        raise ValueError(f"unknown backend {str(backend)!r}; choose one of {known}")
    if backend in (Backend.REFERENCE, Backend.TORCH):
        return Backend(backend)
    if backend == Backend.AUTO and query.device.type != "cuda":
        return Backend.TORCH
    obstacle = _triton_and_device(query.device.type, query.device.index) or _triton_and_call(
        query, roles, basis
    )
    if obstacle is None:
        return Backend.TRITON
    if backend == Backend.TRITON:
        raise ValueError(f"the triton backend cannot take this call: {obstacle}")
    return Backend.TORCH


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch has no types here
def _triton_and_device(device_type: str, index: int | None) -> str | None:
    """Why Triton cannot serve a device; None if it can."""
    if find_spec("triton") is None:
        return "triton is not installed; it comes with CUDA builds of torch and attnsearch[gpu]"
    from attnsearch_kernels.triton.operators import why_not

    return why_not(torch.device(device_type) if index is None else torch.device(device_type, index))


def _triton_and_call(query: Tensor, roles: Tensor, basis: Tensor) -> str | None:
    from attnsearch_kernels.triton.operators import unsupported

    return unsupported(
        query.dtype, channels=query.shape[3], columns=basis.shape[1], roles=roles.shape[2]
    )


def _sketch_attention_triton(*args: Tensor, **kwargs: Any) -> SketchedAttention:
    from attnsearch_kernels.triton.operators import sketch_attention_triton

    return sketch_attention_triton(*args, **kwargs)


def _sketch_given_lse_triton(*args: Tensor, **kwargs: Any) -> MapStatistics:
    from attnsearch_kernels.triton.operators import sketch_given_lse_triton

    return sketch_given_lse_triton(*args, **kwargs)


_ATTENTION: Final[dict[str, Callable[..., SketchedAttention]]] = {
    Backend.REFERENCE: sketch_attention_reference,
    Backend.TORCH: sketch_attention_plain,
    Backend.TRITON: _sketch_attention_triton,
}
_GIVEN_LSE: Final[dict[str, Callable[..., MapStatistics]]] = {
    Backend.REFERENCE: sketch_given_lse_reference,
    Backend.TORCH: sketch_given_lse_plain,
    Backend.TRITON: _sketch_given_lse_triton,
}


@torch.library.custom_op("attnsearch::sketch_attention", mutates_args=())
def _sketch_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    key_mask: Tensor | None,
    *,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    # Statistics are float32, whatever precision the model's other products run in.
    with torch.autocast(query.device.type, enabled=False):
        return _ATTENTION[backend](query, key, value, roles, basis, scale=scale, key_mask=key_mask)


@_sketch_attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    key_mask: Tensor | None,
    *,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    # Triton keeps the memory order of the query, the others give a contiguous output.
    in_order = backend == Backend.TRITON
    output = torch.empty_like(row_major(query)) if in_order else query.new_empty(query.shape)
    return output, *empty_statistics(query, roles, basis)


@torch.library.custom_op("attnsearch::sketch_given_lse", mutates_args=())
def _sketch_given_lse(
    query: Tensor,
    key: Tensor,
    roles: Tensor,
    basis: Tensor,
    lse: Tensor,
    key_mask: Tensor | None,
    *,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        return _GIVEN_LSE[backend](query, key, roles, basis, lse, scale=scale, key_mask=key_mask)


@_sketch_given_lse.register_fake
def _(
    query: Tensor,
    key: Tensor,
    roles: Tensor,
    basis: Tensor,
    lse: Tensor,
    key_mask: Tensor | None,
    *,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty_statistics(query, roles, basis)
