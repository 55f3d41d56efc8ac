"""Turning captions into the token embeddings a model is conditioned on."""

from attnsearch.encoders.contract import EncodedText, Encoder, EncoderKind, EncoderSpec
from attnsearch.encoders.pretrained import PretrainedTextEncoder, fit_pretrained
from attnsearch.encoders.random_embedding import RandomTokenEncoder

__all__ = [
    "EncodedText",
    "Encoder",
    "EncoderKind",
    "EncoderSpec",
    "PretrainedTextEncoder",
    "RandomTokenEncoder",
    "build",
    "fit_pretrained",
]


def build(spec: EncoderSpec) -> Encoder:
    """The encoder a spec describes.

    Raises:
        AttnsearchError: a pretrained encoder cannot be read, or an optional package is missing.
    """
    return RandomTokenEncoder(spec) if spec.kind.is_random else PretrainedTextEncoder(spec)
