"""Our own DiT behind the contract of the circuits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnsearch.axes import Site
from attnsearch.models import Attention, DiT


@dataclass(frozen=True, slots=True)
class DiTLayer:
    """A cross-attention module as a `CircuitLayer`."""

    attention: Attention

    @property
    def scale(self) -> float:
        """Factor on the logits, 1 / sqrt(channels per head)."""
        return self.attention.scale

    def queries(self, stream: Tensor) -> Tensor:
        """Queries [head, token, channel] of a residual stream [token, width]."""
        return self._by_head(self.attention.query(stream))

    def keys(self, source: Tensor) -> Tensor:
        """Keys [head, word, channel] of projected words [word, width]."""
        return self._by_head(self.attention.key(source))

    def writes(self, source: Tensor) -> Tensor:
        """What a head adds where it attends to one word alone, [head, word, width]."""
        output = self.attention.out.weight.unflatten(1, (self.attention.heads, -1))
        return torch.einsum("hwc,dhc->hwd", self._by_head(self.attention.value(source)), output)

    def _by_head(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (self.attention.heads, -1)).transpose(0, 1)


@dataclass(frozen=True, slots=True)
class DiTCircuit:
    """A DiT as a `CircuitModel`."""

    model: DiT

    @property
    def grid(self) -> tuple[int, int]:
        """Image tokens, height and width."""
        return self.model.config.grid, self.model.config.grid

    @property
    def position(self) -> Tensor:
        """The code pos(p) that is added to the residual stream, [token, width], row-major."""
        return self.model.position

    @property
    def layers(self) -> Sequence[DiTLayer]:
        """Cross-attention layers by depth."""
        return [DiTLayer(module) for module in self.model.attention_modules(Site.CROSS)]

    def project_caption(self, embedding: Tensor) -> Tensor:
        """What keys are made of, [..., width], from token embeddings [..., channel]."""
        return self.model.caption_mlp(embedding)
