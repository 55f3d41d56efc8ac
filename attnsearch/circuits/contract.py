"""What a model must offer so that its circuits can be read from its weights.

The maps rest on one property: cross-attention reads the raw residual stream, to which a fixed
position code was added, so that `W_Q pos(p)` is an additive part of every logit. A family of
models joins by one file that puts it behind `CircuitModel`; a model whose queries are normalised
or modulated first does not have the property and has no place here.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class CircuitLayer(Protocol):
    """One cross-attention layer, biases included; every map is affine."""

    @property
    def scale(self) -> float:
        """Factor on the logits, 1 / sqrt(channels per head)."""

    def queries(self, stream: Tensor) -> Tensor:
        """Queries [head, token, channel] of a residual stream [token, width]."""

    def keys(self, source: Tensor) -> Tensor:
        """Keys [head, word, channel] of projected words [word, width]."""

    def writes(self, source: Tensor) -> Tensor:
        """What a head adds to the stream where it attends to one word alone, [head, word, width].

        `source` [word, width] are projected words. The bias of the output, which is no head's, is
        left out.
        """


class CircuitModel(Protocol):
    """A model whose cross-attention can be read without sampling."""

    @property
    def grid(self) -> tuple[int, int]:
        """Image tokens, height and width."""

    @property
    def position(self) -> Tensor:
        """The code pos(p) that is added to the residual stream, [token, width], row-major."""

    @property
    def layers(self) -> Sequence[CircuitLayer]:
        """Cross-attention layers by depth."""

    def project_caption(self, embedding: Tensor) -> Tensor:
        """What keys are made of, [..., width], from token embeddings [..., channel]."""
