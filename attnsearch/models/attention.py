"""Multi-head attention whose core can be replaced from outside.

Every attention module of ours calls its `attend` attribute on an `AttentionCall`. It is plain
attention unless `families.route` leads it elsewhere, as it does the modules of diffusers.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from attnsearch.axes import Branch, Site

BranchRows = tuple[tuple[Branch, slice], ...]
"""Which rows of a batch belong to which branch of classifier-free guidance."""


TokenPlaces = slice | Tensor
"""Places along an axis of tokens: alike in all rows, or [row, token] indices where rows differ. An
index of -1 is a token that is not in its row."""


class AttentionCall(NamedTuple):
    """One call of one attention module.

    A module by itself knows neither `text_keys` nor what follows it; `families.route` tells.
    """

    layer: int
    site: Site
    branches: BranchRows
    query: Tensor
    """[row, head, query, channel]."""
    key: Tensor
    """[row, head, key, channel]."""
    value: Tensor
    """[row, head, key, channel]."""
    scale: float
    key_mask: Tensor | None
    """[row, key] bool, True where a key may be attended; None for all."""
    text_keys: TokenPlaces | None = None
    """Which keys are text tokens, the others being image tokens; None where all are text."""
    grid: tuple[int, ...] = ()
    """The queries as (height, width), of a video as (frame, height, width); row-major."""
    step: int = 0
    """Zero-based order in the sampling."""

    @property
    def text_tokens(self) -> int:
        """Text tokens among the keys; where rows differ, of the longest."""
        keys = self.key.shape[2]
        match self.text_keys:
            case None:
                return keys
            case slice() as places:
                return len(range(*places.indices(keys)))
            case places:
                return places.shape[1]


AttendFunction = Callable[[AttentionCall], Tensor]
"""From a call to its output [row, head, query, channel]."""


def plain_attention(call: AttentionCall) -> Tensor:
    """Softmax attention, as the framework computes it."""
    mask = None if call.key_mask is None else call.key_mask[:, None, None, :]
    return F.scaled_dot_product_attention(
        call.query, call.key, call.value, attn_mask=mask, scale=call.scale
    )


class Attention(nn.Module):
    """Multi-head attention from `source` (keys, values) to `target` (queries)."""

    def __init__(self, width: int, heads: int, layer: int, site: Site) -> None:
        super().__init__()
        self.heads = heads
        self.layer = layer
        self.site = site
        self.attend: AttendFunction = plain_attention
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    @property
    def scale(self) -> float:
        """Factor on the logits, 1 / sqrt(channels per head)."""
        return (self.query.out_features // self.heads) ** -0.5

    def forward(
        self,
        target: Tensor,
        source: Tensor,
        branches: BranchRows,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from target [row, query, width] to source [row, key, width]."""
        output = self.attend(
            AttentionCall(
                self.layer,
                self.site,
                branches,
                self._split(self.query(target)),
                self._split(self.key(source)),
                self._split(self.value(source)),
                self.scale,
                key_mask,
            )
        )
        return self.out(output.transpose(1, 2).flatten(2))

    def _split(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2)
