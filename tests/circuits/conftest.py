"""Models without training, and the words they are asked about."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from attnsearch import encoders
from attnsearch.encoders import EncodedText, EncoderKind, EncoderSpec
from attnsearch.models import SIZES, DiT, DiTConfig
from attnsearch.task.captions import Caption, grid_captions
from attnsearch.task.spec import PRESETS


class Untrained(NamedTuple):
    model: DiT
    text: EncodedText
    captions: list[Caption]


@pytest.fixture(scope="session")
def untrained() -> Callable[..., Untrained]:
    """Builds a model of the smallest size, all weights random, and encodes its prompt grid."""

    def build(seed: int, task: str = "small", kind: EncoderKind = EncoderKind.RTEP) -> Untrained:
        spec, size = PRESETS[task], SIZES["atto"]
        encoder = EncoderSpec(kind=kind, channels=64, text_length=spec.text_length, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = DiT(
                DiTConfig(
                    image_side=32,
                    depth=size.depth,
                    width=size.width,
                    heads=size.heads,
                    mlp_ratio=size.mlp_ratio,
                    text_channels=encoder.channels,
                    text_length=encoder.text_length,
                )
            )
            for name, parameter in model.named_parameters():
                std = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.1
                if not name.startswith("final"):
                    torch.nn.init.normal_(parameter, std=std)
        captions = grid_captions(spec)
        text = encoders.build(encoder).encode(captions)
        return Untrained(model.requires_grad_(requires_grad=False), text, captions)

    return build
