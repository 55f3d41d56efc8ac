"""From a spec to the encoder it describes."""

from attnsearch.encoders.contract import Encoder, EncoderSpec
from attnsearch.encoders.pretrained import PretrainedTextEncoder
from attnsearch.encoders.random_embedding import RandomTokenEncoder


def build(spec: EncoderSpec) -> Encoder:
    """The encoder a spec describes.

    Raises:
        AttnsearchError: a pretrained encoder cannot be read, or an optional package is missing.
    """
    return RandomTokenEncoder(spec) if spec.kind.is_random else PretrainedTextEncoder(spec)
