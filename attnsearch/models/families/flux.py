"""Flux.1: joint attention, T5 tokens then image tokens, without a mask.

The double blocks come first, the single blocks count on from them. Latents arrive as a packed
sequence; the grid is read from the position ids of the image tokens.
"""

from collections.abc import Mapping
from typing import Any, Final

from attnsearch.models.families.contract import Family, TextPlace, TextRun


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    # [image token, (0, y, x)], from zero; diffusers still takes a batch of them.
    last = arguments["img_ids"].reshape(-1, 3).amax(0).tolist()
    return int(last[1]) + 1, int(last[2]) + 1


FLUX: Final = Family(
    name="Flux",
    transformer="FluxTransformer2DModel",
    text=TextPlace.FIRST,
    processors=("FluxAttnProcessor",),
    attention=lambda transformer: [
        block.attn
        for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks)
        for block in blocks
    ],
    grid=_grid,
    texts=(TextRun("tokenizer_2", "text_encoder_2"),),
)
