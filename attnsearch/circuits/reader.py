"""A model whose circuits can be read from its weights, of whichever family.

The maps rest on one property: cross-attention reads the raw residual stream, to which a fixed
position code was added, so that `W_Q pos(p)` is an additive part of every logit. A family that has
it declares a `StreamReading`; a model whose queries are normalised, modulated or rotated first does
not have it and cannot be read here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnsearch.errors import ConfigError
from attnsearch.models.families import Projections, StreamReading, find_family


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitLayer:
    """One cross-attention layer, biases included; every map is affine."""

    heads: int
    projections: Projections
    output: Tensor
    """W_O [width, head * channel]."""

    @property
    def scale(self) -> float:
        """Factor on the logits, 1 / sqrt(channels per head)."""
        return self.projections.scale

    def queries(self, stream: Tensor) -> Tensor:
        """Queries [head, token, channel] of a residual stream [token, width]."""
        return self._by_head(self.projections.query(stream))

    def keys(self, source: Tensor) -> Tensor:
        """Keys [head, word, channel] of projected words [word, width]."""
        return self._by_head(self.projections.key(source))

    def writes(self, source: Tensor) -> Tensor:
        """What a head adds to the stream where it attends to one word alone, [head, word, width].

        `source` [word, width] are projected words. The bias of the output, which is no head's, is
        left out.
        """
        values = self._by_head(self.projections.value(source))
        return torch.einsum("hwc,dhc->hwd", values, self.output.unflatten(1, (self.heads, -1)))

    def _by_head(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (self.heads, -1)).transpose(0, 1)


class CircuitModel:
    """A model whose cross-attention can be read without sampling."""

    def __init__(self, model: nn.Module) -> None:
        """`model` is of a family that tells what its weights say of the stream.

        Raises:
            ConfigError: it is of another family, or of none.
        """
        self._family = find_family(model)
        if self._family.stream is None:
            raise ConfigError(
                f"the QK maps of {type(model).__name__} cannot be read from its weights, because "
                "its queries are normalised, rotated or without a position code; scan it"
            )
        self._model = model
        self._read = self._family.stream

    @property
    def grid(self) -> tuple[int, int]:
        """Image tokens, height and width."""
        return self._stream.grid

    @property
    def position(self) -> Tensor:
        """The code pos(p) that is added to the residual stream, [token, width], row-major."""
        return self._stream.position

    @property
    def layers(self) -> Sequence[CircuitLayer]:
        """Cross-attention layers by depth."""
        stream = self._stream
        return [
            CircuitLayer(
                heads=layer.heads,
                projections=stream.projections(layer.attention),
                output=self._family.output(self._model, layer),
            )
            for layer in self._family.layers(self._model)
        ]

    def project_caption(self, embedding: Tensor) -> Tensor:
        """What keys are made of, [..., width], from token embeddings [..., channel]."""
        return self._stream.project_caption(embedding)

    @property
    def _stream(self) -> StreamReading:
        """Read anew each time: weights may be moved or replaced in between."""
        return self._read(self._model)
