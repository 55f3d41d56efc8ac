"""The operator and what it is compared with: every way to compute a call, and how much of it.

A rival takes the tensors of a call, prepares what a model would prepare once for all its layers,
and gives back what is timed: a function without arguments that returns the fields of
`SketchedAttention` it computes. A field that is not among them is not computed.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import torch
from _cases import Inputs
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from attnsearch_kernels import sketch_attention, sketch_given_lse

Results = dict[str, Tensor]
Call = Callable[[], Results]
Rival = Callable[[Inputs], Call]


def sketched(inputs: Inputs) -> Call:
    """The operator: output and all statistics."""
    query, key, value, roles, basis = _tensors(inputs)

    def call() -> Results:
        result = sketch_attention(
            query, key, value, roles, basis, scale=inputs.scale, key_mask=inputs.mask
        )
        return result._asdict()

    return call


def plain(inputs: Inputs) -> Call:
    """The framework's attention, by the kernel it prefers: the output alone."""
    query, key, value, _, _ = _tensors(inputs)
    bias = _bias(inputs)

    def call() -> Results:
        return {"output": _attention(query, key, value, bias, inputs.scale)}

    return call


def flash(inputs: Inputs) -> Call:
    """FlashAttention, which takes no mask: the output alone."""
    return _forced(plain(inputs), SDPBackend.FLASH_ATTENTION)


def cudnn(inputs: Inputs) -> Call:
    """The attention of cuDNN: the output alone."""
    return _forced(plain(inputs), SDPBackend.CUDNN_ATTENTION)


def appended(inputs: Inputs) -> Call:
    """Plain attention on values widened by the roles: output, sketch, energy.

    Kernels that want values as wide as queries, FlashAttention among them, are out.
    """
    query, key, value, roles, _ = _tensors(inputs)
    bias, basis = _bias(inputs), inputs.basis.float()
    weights = _per_head(roles, value)

    def call() -> Results:
        wide = torch.cat((value, weights), -1)
        mixed = _attention(query, key, wide, bias, inputs.scale)
        return _parted(mixed, value.shape[-1], weights.shape[-1], basis)

    return call


def appended_padded(inputs: Inputs) -> Call:
    """As `appended`, for every kernel: query and key are widened too, by zeros.

    The three wide tensors are there beforehand, as if the model's projections had written them.
    """
    query, key, value, roles, _ = _tensors(inputs)
    bias, basis = _bias(inputs), inputs.basis.float()
    weights = _per_head(roles, value)
    groups = weights.shape[-1]
    wide_query, wide_key = (_model_order(functional.pad(x, (0, groups))) for x in (query, key))
    wide_value = _model_order(torch.cat((value, weights), -1))

    def call() -> Results:
        mixed = _attention(wide_query, wide_key, wide_value, bias, inputs.scale)
        return _parted(mixed, value.shape[-1], groups, basis)

    return call


def behind_lse(inputs: Inputs) -> Call:
    """Attention that returns its log-sum-exp, then `sketch_given_lse`: output and all statistics.

    FlashAttention; in float32 or with a mask on a GPU the memory-efficient kernel.
    """
    query, key, value, roles, basis = _tensors(inputs)
    tokens, keys = query.shape[2], key.shape[2]
    bias = _bias(inputs)
    wide_bias = None if bias is None else bias.expand(*query.shape[:2], tokens, keys)

    def attend() -> tuple[Tensor, Tensor]:
        operators = torch.ops.aten
        scale = inputs.scale
        if query.device.type == "cpu":
            result = operators._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, attn_mask=bias, scale=scale
            )
        elif bias is None and query.dtype != torch.float32:
            result = operators._scaled_dot_product_flash_attention(query, key, value, scale=scale)
        else:
            result = operators._scaled_dot_product_efficient_attention(
                query, key, value, wide_bias, compute_log_sumexp=True, scale=scale
            )
        # The memory-efficient kernel rounds the number of rows up.
        return result[0], result[1][..., :tokens]

    def call() -> Results:
        output, lse = attend()
        statistics = sketch_given_lse(
            query, key, roles, basis, lse, scale=inputs.scale, key_mask=inputs.mask
        )
        return {"output": output, **statistics._asdict()}

    return call


def materialised(inputs: Inputs) -> Call:
    """The map in memory once, float32, with as few passes over it as torch allows: everything."""
    return _materialised(inputs, _materialise)


def compiled(inputs: Inputs) -> Call:
    """`materialised` under torch.compile: everything."""
    return _materialised(inputs, _compiled(_materialise))


def naive(inputs: Inputs) -> Call:
    """The map in memory, float32, and one reduction of it per statistic: everything."""
    query, key, value, roles, _ = _tensors(inputs)
    bias, basis = _bias(inputs), inputs.basis.float()

    def call() -> Results:
        scores = query.float() @ key.float().mT * inputs.scale
        if bias is not None:
            scores = scores + bias
        attention = scores.softmax(-1)
        role_mass = attention @ roles[:, None]
        return {
            "output": (attention @ value.float()).to(value.dtype),
            "sketch": basis.T @ role_mass,
            "entropy": torch.special.entr(attention).sum(-1),
            "peak": attention.amax(-1),
            "energy": role_mass.square().sum(-2),
        }

    return call


def flex(inputs: Inputs) -> Call:
    """FlexAttention with its auxiliary outputs: output and peak; it cannot sum over queries."""
    query, key, value, _, _ = _tensors(inputs)
    attend = _compiled(_flex)

    def call() -> Results:
        output, lse, largest = attend(query, key, value, inputs.mask, inputs.scale)
        return {"output": output, "peak": (largest - lse).exp()}

    return call


def flex_sketched(inputs: Inputs) -> Call:
    """FlexAttention, then `sketch_given_lse`: output and all statistics."""
    query, key, value, roles, basis = _tensors(inputs)
    attend = _compiled(_flex)

    def call() -> Results:
        output, lse, _ = attend(query, key, value, inputs.mask, inputs.scale)
        statistics = sketch_given_lse(
            query, key, roles, basis, lse, scale=inputs.scale, key_mask=inputs.mask
        )
        return {"output": output, **statistics._asdict()}

    return call


RIVALS: Final[dict[str, Rival]] = {
    rival.__name__: rival
    for rival in (
        plain,
        sketched,
        behind_lse,
        flash,
        cudnn,
        appended,
        appended_padded,
        materialised,
        compiled,
        naive,
        flex,
        flex_sketched,
    )
}
OURS: Final = frozenset({"sketched", "behind_lse"})
COMPILED: Final = frozenset({"compiled", "flex", "flex_sketched"})
GPU_ONLY: Final = frozenset({"flash", "cudnn", "flex", "flex_sketched"})
"""On a CPU plain attention is FlashAttention, and FlexAttention gives no auxiliary outputs."""


def _tensors(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return inputs.query, inputs.key, inputs.value, inputs.roles, inputs.basis


def _bias(inputs: Inputs) -> Tensor | None:
    """The mask as attention kernels like it: additive, and aligned to eight entries."""
    if inputs.mask is None:
        return None
    batch, keys = inputs.mask.shape
    rows = inputs.query.new_zeros(batch, -(-keys // 8) * 8)[:, :keys]
    # Finite, because the materialised form multiplies it by zero.
    lowest = torch.finfo(rows.dtype).min
    return rows.masked_fill_(~inputs.mask, lowest)[:, None, None]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)


def _forced(attend: Call, backend: SDPBackend) -> Call:
    def call() -> Results:
        with sdpa_kernel(backend):
            return attend()

    return call


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """One compiled function for all sets of inputs."""
    return torch.compile(function, dynamic=False)


def _per_head(roles: Tensor, like: Tensor) -> Tensor:
    """`[B, H, M, G]` in the dtype of `like` `[B, H, M, D]`."""
    return roles.to(like.dtype)[:, None].expand(-1, like.shape[1], -1, -1)


def _model_order(tensor: Tensor) -> Tensor:
    """The same tensor in memory as `[B, N, H, D]`."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def _parted(mixed: Tensor, channels: int, groups: int, basis: Tensor) -> Results:
    """Output, sketch and energy, of an output with the mass of the roles behind it."""
    role_mass = mixed[..., channels : channels + groups].float()
    return {
        "output": mixed[..., :channels],
        "sketch": basis.T @ role_mass,
        "energy": role_mass.square().sum(-2),
    }


def _materialised(inputs: Inputs, materialise: Callable[..., Results]) -> Call:
    query, key, value, roles, _ = _tensors(inputs)
    bias, basis = _bias(inputs), inputs.basis.float()
    weights = _per_head(roles, value)

    def call() -> Results:
        return materialise(query, key, value, weights, basis, bias, inputs.scale)

    return call


def _materialise(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Tensor,
    basis: Tensor,
    bias: Tensor | None,
    scale: float,
) -> Results:
    scores = _float32_product(query, key.mT) * scale
    if bias is not None:
        scores = scores + bias
    attention = scores.softmax(-1)
    peak = attention.amax(-1)
    log_sum = scores.amax(-1) - peak.log()
    operand = attention.to(value.dtype)
    role_mass = _float32_product(operand, weights)
    return {
        "output": operand @ value,
        "sketch": basis.T @ role_mass,
        "entropy": log_sum - (attention * scores).sum(-1),
        "peak": peak,
        "energy": role_mass.square().sum(-2),
    }


def _float32_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` in float32; of half precision on tensor cores where there are some."""
    if left.device.type == "cuda" and left.dtype != torch.float32:
        product = torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out_dtype=torch.float32)
        return product.unflatten(0, left.shape[:2])
    return left.float() @ right.float()


def _flex(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, log-sum-exp and largest score of every row."""

    def attended(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return score if mask is None else torch.where(mask[batch, column], score, -torch.inf)

    output, auxiliary = flex_attention(
        query,
        key,
        value,
        score_mod=None if mask is None else attended,
        scale=scale,
        return_aux=AuxRequest(lse=True, max_scores=True),
    )
    lse, largest = auxiliary.lse, auxiliary.max_scores
    assert lse is not None
    assert largest is not None
    return output, lse, largest
