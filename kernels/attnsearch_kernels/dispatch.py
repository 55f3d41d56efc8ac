"""The operator `sketch_attention`: one torch custom op in front of all backends."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from attnsearch_kernels.contract import (
    Backend,
    SketchedAttention,
    check_arguments,
    resolve_backend,
)
from attnsearch_kernels.cpu import sketch_attention_cpu
from attnsearch_kernels.reference import sketch_attention_reference

_IMPLEMENTATIONS: Final[dict[str, Callable[..., SketchedAttention]]] = {
    Backend.REFERENCE: sketch_attention_reference,
    Backend.CPU: sketch_attention_cpu,
}


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
    rest. The map and all statistics are float32 or better whatever the inputs. Rows without keys
    (M = 0, or all masked) give zeros. Keys that are masked must still be finite.

    For inference: the forward pass runs under autograd, a backward pass through it raises.

    Args:
        query: `[B, H, N, D]`, N image tokens, row-major over the grid; any float dtype.
        key: `[B, H, M, D]`, M text tokens; dtype of the query.
        value: `[B, H, M, D]`; dtype of the query.
        roles: `[B, M, G]`, weight of each token in each role, any float dtype. When every row sums
            to one, the sketch summed over roles is `basis.T @ ones`. A zero row (an image key of
            joint attention) takes part in the softmax and in no role.
        basis: `[N, F]`, as of `dct2`; any float dtype.
        scale: factor on the scores, usually `D ** -0.5`.
        key_mask: `[B, M]` bool, True where the key may be attended; None for all.
        backend: who computes it; `resolve_backend` tells what `auto` means on a device.

    Raises:
        ValueError: sizes, dtypes or devices disagree, or the backend cannot run here.
    """
    check_arguments(query, key, value, roles, basis, key_mask)
    resolved = resolve_backend(query.device.type, backend)
    return SketchedAttention(
        *_sketch_attention(
            query, key, value, roles, basis, key_mask, scale=scale, backend=resolved.value
        )
    )


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
    implementation = _IMPLEMENTATIONS[backend]
    return implementation(query, key, value, roles, basis, scale=scale, key_mask=key_mask)


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
    batch, heads, tokens, channels = query.shape
    groups, columns = roles.shape[2], basis.shape[1]
    statistics = (
        query.new_empty(shape, dtype=torch.float32)
        for shape in (
            (batch, heads, columns, groups),
            (batch, heads, tokens),
            (batch, heads, tokens),
            (batch, heads, groups),
        )
    )
    output = query.new_empty((batch, heads, tokens, channels))
    sketch, entropy, peak, energy = statistics
    return output, sketch, entropy, peak, energy
