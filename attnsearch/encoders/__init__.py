"""Turning captions into the token embeddings a model is conditioned on."""

from typing import TYPE_CHECKING, Final

from attnsearch.lazy import loader

if TYPE_CHECKING:
    from attnsearch.encoders.building import build as build
    from attnsearch.encoders.contract import EncodedText as EncodedText
    from attnsearch.encoders.contract import Encoder as Encoder
    from attnsearch.encoders.contract import EncoderKind as EncoderKind
    from attnsearch.encoders.contract import EncoderSpec as EncoderSpec
    from attnsearch.encoders.pretrained import PretrainedTextEncoder as PretrainedTextEncoder
    from attnsearch.encoders.pretrained import fit_pretrained as fit_pretrained
    from attnsearch.encoders.random_embedding import RandomTokenEncoder as RandomTokenEncoder

_HOMES: Final = {
    "EncodedText": "contract",
    "Encoder": "contract",
    "EncoderKind": "contract",
    "EncoderSpec": "contract",
    "PretrainedTextEncoder": "pretrained",
    "RandomTokenEncoder": "random_embedding",
    "build": "building",
    "fit_pretrained": "pretrained",
}

__all__ = sorted(_HOMES)
__getattr__ = loader(__name__, _HOMES)
