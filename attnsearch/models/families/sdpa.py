"""Catching the one attention call inside a diffusers processor, and reading its mask.

The processor is diffusers' own and runs unchanged: projections, norms, rotary embeddings. Only
its call of `torch.nn.functional.scaled_dot_product_attention` goes elsewhere. Nothing here knows
of layers, text or branches.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attnsearch.errors import ConfigError


class SdpaCall(NamedTuple):
    """The arguments of `scaled_dot_product_attention`, under its names and in its order."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False


Replacement = Callable[[SdpaCall], Tensor]
"""From a call to its output [row, head, query, channel]."""

NEGLIGIBLE_BIAS = -1e3
"""A bias this far below the largest of its row leaves nothing of a weight: exp(-1000) is zero in
float64 too. Diffusers excludes keys by -10000."""


class WatchedProcessor:
    """An attention processor whose single attention call is computed by `replacement`."""

    def __init__(self, processor: Any, where: str, replacement: Replacement) -> None:
        @wraps(processor.__call__)
        def call(*args: Any, **kwargs: Any) -> Any:
            interception = _Interception(where, replacement)
            with interception:
                output = processor(*args, **kwargs)
            if interception.calls == 0:
                raise ConfigError(
                    f"{where} computed attention without scaled_dot_product_attention; only "
                    "diffusers' native attention backend can be watched"
                )
            return output

        self._call = call

    @property
    def __call__(self) -> Callable[..., Any]:
        """The watched call, under the signature of the original.

        A property, since diffusers reads the signature of `processor.__call__` and keeps from a
        processor whatever is not in it.
        """
        return self._call


class _Interception(TorchFunctionMode):
    """Inside the `with` block, one scaled_dot_product_attention goes to `replacement`."""

    def __init__(self, where: str, replacement: Replacement) -> None:
        super().__init__()
        self.calls = 0
        self._where = where
        self._replacement = replacement

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.calls += 1
        if self.calls > 1:
            raise ConfigError(
                f"{self._where} computes attention more than once a call (image prompts do); "
                "which one reads the text is not known"
            )
        call = SdpaCall(*args, **(kwargs or {}))
        for setting, used in (
            ("dropout", call.dropout_p != 0),
            ("causal masking", call.is_causal),
            ("grouped queries", call.enable_gqa),
        ):
            if used:
                raise ConfigError(f"{self._where} uses {setting}, which cannot be watched")
        return self._replacement(call)


def padding_mask(call: SdpaCall, where: str) -> Tensor | None:
    """Which keys of a call may be attended, [row, key] bool; None without a mask.

    A bool mask is taken as it is. Of a float mask, added to the logits, the keys with the largest
    bias of their row may be attended, and all others must be far enough below to vanish: softmax
    does not see what is added to all logits alike. So a row in which every key is biased by
    -10000 is a row without a mask, which is what diffusers computes too, up to the rounding of
    logits beside 10000; a row of False or of -inf has no key, and gives zeros there and here.

    Raises:
        ConfigError: the mask differs between heads or queries, or weighs keys by degrees.
    """
    if call.attn_mask is None:
        return None
    mask = call.attn_mask[(None,) * (4 - call.attn_mask.dim())]  # [row, head, query, key] or ones
    of_row = mask[:, :1, :1]
    alike = (mask == of_row).all()
    if mask.is_floating_point():
        largest = of_row.amax(-1, keepdim=True)
        excluded = of_row <= largest + NEGLIGIBLE_BIAS
        alike = alike & (excluded | (of_row == largest)).all()
        of_row = ~excluded
    if not alike:
        raise ConfigError(
            f"{where} has an attention mask that is no padding mask: it differs between heads or "
            "queries, or weighs keys instead of excluding them"
        )
    return of_row[:, 0, 0].expand(call.key.shape[0], call.key.shape[2])
