"""A PixArt transformer of diffusers behind the contract of the circuits.

Its cross-attention reads the raw residual stream, as ours does; of the other families that
attnsearch watches, none does (SANA has no position code, the rest normalise or rotate queries).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class PixArtLayer:
    """A cross-attention module of diffusers as a `CircuitLayer`."""

    attention: Any

    @property
    def scale(self) -> float:
        """Factor on the logits, 1 / sqrt(channels per head)."""
        return float(self.attention.scale)

    def queries(self, stream: Tensor) -> Tensor:
        """Queries [head, token, channel] of a residual stream [token, width]."""
        return self._by_head(self.attention.to_q(stream))

    def keys(self, source: Tensor) -> Tensor:
        """Keys [head, word, channel] of projected words [word, width]."""
        return self._by_head(self.attention.to_k(source))

    def writes(self, source: Tensor) -> Tensor:
        """What a head adds where it attends to one word alone, [head, word, width]."""
        output = self.attention.to_out[0].weight.unflatten(1, (self.attention.heads, -1))
        return torch.einsum("hwc,dhc->hwd", self._by_head(self.attention.to_v(source)), output)

    def _by_head(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (self.attention.heads, -1)).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class PixArtCircuit:
    """A `PixArtTransformer2DModel` as a `CircuitModel`, at the size it was trained at."""

    transformer: Any

    @classmethod
    def serves(cls, transformer: nn.Module) -> bool:
        """Whether a transformer is of this class or derived from it."""
        return any(
            base.__name__ == "PixArtTransformer2DModel" for base in type(transformer).__mro__
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Image tokens, height and width."""
        config = self.transformer.config
        side = config.sample_size // config.patch_size
        return side, side

    @property
    def position(self) -> Tensor:
        """The code pos(p) that is added to the residual stream, [token, width], row-major."""
        code: Tensor = self.transformer.pos_embed.pos_embed[0]
        return code.to(self.transformer.dtype)

    @property
    def layers(self) -> Sequence[PixArtLayer]:
        """Cross-attention layers by depth."""
        return [PixArtLayer(block.attn2) for block in self.transformer.transformer_blocks]

    def project_caption(self, embedding: Tensor) -> Tensor:
        """What keys are made of, [..., width], from token embeddings [..., channel]."""
        projected: Tensor = self.transformer.caption_projection(
            embedding.to(self.transformer.dtype)
        )
        return projected
