"""Turning captions into the token embeddings a model is conditioned on."""

from attnsearch.encoders.contract import EncodedText, Encoder, EncoderKind, EncoderSpec
from attnsearch.encoders.random_embedding import RandomTokenEncoder

__all__ = ["EncodedText", "Encoder", "EncoderKind", "EncoderSpec", "RandomTokenEncoder", "build"]


def build(spec: EncoderSpec) -> Encoder:
    """The encoder a spec describes."""
    return RandomTokenEncoder(spec)
