"""What every text encoder is and gives, whatever model stands behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from torch import Tensor

from attnsearch.errors import ConfigError
from attnsearch.task.captions import Caption


class EncoderKind(StrEnum):
    """The prompt encodings a model can be trained under."""

    RTE = "rte"
    """Random token embeddings: one fixed random vector per token, no order."""
    RTEP = "rtep"
    """Random token embeddings plus sinusoidal token positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """All that is needed to rebuild an encoder; saved in every checkpoint."""

    kind: EncoderKind
    channels: int
    """Width of a token embedding; 4096 in the paper."""
    text_length: int
    """Tokens per caption, padding included."""
    seed: int = 42
    """Seed of the random embeddings; 42 in the paper."""

    def __post_init__(self) -> None:
        if self.channels < 2 or self.channels % 2:
            raise ConfigError(f"encoder channels must be even and at least 2, not {self.channels}")
        if self.text_length < 1:
            raise ConfigError(f"text_length must be at least 1, not {self.text_length}")


class EncodedText(NamedTuple):
    """A batch of captions as the model reads them."""

    embedding: Tensor
    """[caption, token, channel] float32."""
    mask: Tensor
    """[caption, token] bool, False on padding."""
    roles: Tensor
    """Gamma [caption, token, role] float32, one-hot rows."""


class Encoder(Protocol):
    """A text encoder."""

    @property
    def spec(self) -> EncoderSpec:
        """What this encoder was built from."""

    def encode(self, captions: Sequence[Caption]) -> EncodedText:
        """Embed captions.

        Raises:
            CaptionError: a caption does not fit `spec.text_length`.
        """
