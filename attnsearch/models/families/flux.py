"""Flux.1: joint attention, T5 tokens then image tokens, without a mask.

The double blocks come first, the single blocks count on from them. Latents arrive as a packed
sequence; the grid is read from the position ids of the image tokens.
"""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from attnsearch.axes import Site
from attnsearch.models.families.contract import (
    Family,
    ForwardInputs,
    Layer,
    TextRun,
    own_output,
    text_first,
)
from attnsearch.models.families.processors import ProcessorHook


def _read(transformer: Any, arguments: Mapping[str, Any]) -> ForwardInputs:
    # [image token, (0, y, x)], from zero; diffusers still takes a batch of them.
    last = arguments["img_ids"].reshape(-1, 3).amax(0).tolist()
    return ForwardInputs(
        rows=len(arguments["hidden_states"]),
        grid=(int(last[1]) + 1, int(last[2]) + 1),
        text_tokens=arguments["encoder_hidden_states"].shape[1],
    )


def _output(transformer: Any, layer: Layer) -> Tensor:
    single = layer.index - len(transformer.transformer_blocks)
    if single < 0:
        return own_output(transformer, layer)
    # Heads and MLP of a single block share a projection, the heads first.
    weight: Tensor = transformer.single_transformer_blocks[single].proj_out.weight
    return weight[:, : layer.heads * layer.channels]


FLUX: Final = Family(
    name="Flux",
    model="FluxTransformer2DModel",
    site=Site.JOINT,
    attention=lambda transformer: [
        block.attn
        for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks)
        for block in blocks
    ],
    hook=ProcessorHook("FluxAttnProcessor"),
    output=_output,
    read=_read,
    places=text_first,
    texts=(TextRun("tokenizer_2", "text_encoder_2"),),
)
