"""What every text encoder is and gives, whatever model stands behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from attnsearch.errors import ConfigError
from attnsearch.intake import check_fields

if TYPE_CHECKING:  # a spec is checked before torch is there
    from torch import Tensor

    from attnsearch.task.captions import Caption


class EncoderKind(StrEnum):
    """The prompt encodings a model can be trained under."""

    RTE = "rte"
    """Random token embeddings: one fixed random vector per token, no order."""
    RTEP = "rtep"
    """Random token embeddings plus sinusoidal token positions."""
    T5 = "t5"
    """A T5 encoder, from a folder or the hub."""
    CLIP = "clip"
    """A CLIP text encoder, from a folder or the hub."""
    MINILM = "minilm"
    """MiniLM, a small sentence encoder that comes as a package."""

    @property
    def is_random(self) -> bool:
        """Whether the embeddings are random vectors, so that no weights need to be found."""
        return self in (EncoderKind.RTE, EncoderKind.RTEP)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """All that is needed to rebuild an encoder; saved in every checkpoint.

    Raises:
        ConfigError: a value is of another type or out of range, or two contradict each other.
    """

    kind: EncoderKind
    channels: int
    """Width of a token embedding; 4096 in the paper."""
    text_length: int
    """Tokens per caption, padding included."""
    seed: int = 42
    """Seed of the random embeddings; 42 in the paper."""
    source: str = ""
    """Folder or hub name of the weights; for T5 and CLIP only."""
    dtype: str = "float32"
    """What a pretrained encoder computes in, `float32` or `bfloat16`; it always gives float32."""

    def __post_init__(self) -> None:
        check_fields(self, channels=2**16, text_length=2**12)
        if self.channels < 2 or self.channels % 2:
            raise ConfigError(f"encoder channels must be even and at least 2, not {self.channels}")
        if self.text_length < 1:
            raise ConfigError(f"text_length must be at least 1, not {self.text_length}")
        needs_source = self.kind in (EncoderKind.T5, EncoderKind.CLIP)
        if needs_source and not self.source:
            raise ConfigError(f"the {self.kind} encoder needs a source: a folder or a hub name")
        if self.source and not needs_source:
            raise ConfigError(
                f"the {self.kind} encoder takes no source, yet {self.source} is given"
            )
        if self.dtype == "float16":
            raise ConfigError(
                "encoder dtype float16 is refused: T5's activations overflow it and the images "
                "break; take bfloat16, which costs the same, or float32"
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"encoder dtype must be float32 or bfloat16, not {self.dtype}")


class EncodedText(NamedTuple):
    """A batch of captions as the model reads them."""

    embedding: "Tensor"
    """[caption, token, channel] float32."""
    mask: "Tensor"
    """[caption, token] bool, False on padding."""
    roles: "Tensor"
    """Gamma [caption, token, role] float32, one-hot rows."""


class Encoder(Protocol):
    """A text encoder."""

    @property
    def spec(self) -> EncoderSpec:
        """What this encoder was built from."""

    def encode(self, captions: "Sequence[Caption]") -> EncodedText:
        """Embed captions.

        Raises:
            CaptionError: a caption does not fit `spec.text_length`.
        """
