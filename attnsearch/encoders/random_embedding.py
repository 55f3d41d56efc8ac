"""Random token embeddings, with and without positions (RTEP and RTE).

After arXiv 2601.06338: what a relation needs of the text can be had from an encoder that has
learned nothing, as long as it tells the order of the tokens.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from attnsearch.encoders.contract import EncodedText, EncoderKind, EncoderSpec
from attnsearch.task.captions import PAD, VOCABULARY, Caption, role_matrix, token_ids

TOKEN_NORM = 7.5
"""Expected length of a token vector; T5 v1.1 XXL gives 7.15 on average."""


class RandomTokenEncoder:
    """One fixed random vector per token, plus a sinusoid of the position for RTEP."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        generator = torch.Generator().manual_seed(spec.seed)
        table = torch.randn(len(VOCABULARY), spec.channels, generator=generator)
        self._table = table / sqrt(spec.channels) * TOKEN_NORM
        if spec.kind is EncoderKind.RTEP:
            self._position = position_encoding(spec.text_length, spec.channels)
        else:
            self._position = torch.zeros(spec.text_length, spec.channels)

    def encode(self, captions: Sequence[Caption]) -> EncodedText:
        """Embed captions; pads and `</s>` have random vectors too, as in the paper.

        Raises:
            CaptionError: a caption does not fit `spec.text_length`.
        """
        ids = torch.from_numpy(token_ids(captions, self.spec.text_length))
        roles = torch.from_numpy(role_matrix(captions, self.spec.text_length))
        return EncodedText(self._table[ids] + self._position, ids != PAD, roles)


def position_encoding(length: int, channels: int) -> Tensor:
    """Sinusoidal positions [token, channel]: even channels sine, odd channels cosine.

    The k-th pair turns at 10000^(-2k / channels). Every row has length sqrt(channels / 2) before
    scaling; the factor makes it 7.54, which is the paper's 1/6 at 4096 channels.
    """
    frequency = 10000 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    encoding = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return (encoding * (sqrt(4096 / channels) / 6)).float()
