"""PixArt-alpha and PixArt-Sigma: cross attention `attn2` of every block, T5 tokens with a mask.

As in our own DiT it reads the raw residual stream. Of the other families of diffusers none does:
SANA has no position code, the rest normalise or rotate queries.
"""

from typing import Any, Final

from torch import Tensor

from attnsearch.axes import Site
from attnsearch.models.families.contract import (
    Family,
    Projections,
    StreamReading,
    TextRun,
    latent_inputs,
    text_apart,
)
from attnsearch.models.families.processors import ProcessorHook


def _projections(attention: Any) -> Projections:
    return Projections(attention.to_q, attention.to_k, attention.to_v, float(attention.scale))


def _stream(transformer: Any) -> StreamReading:
    def project(embedding: Tensor) -> Tensor:
        projected: Tensor = transformer.caption_projection(embedding.to(transformer.dtype))
        return projected

    side = transformer.config.sample_size // transformer.config.patch_size
    return StreamReading(
        grid=(side, side),
        position=transformer.pos_embed.pos_embed[0].to(transformer.dtype),
        project_caption=project,
        projections=_projections,
    )


PIXART: Final = Family(
    name="PixArt",
    model="PixArtTransformer2DModel",
    site=Site.CROSS,
    attention=lambda transformer: [block.attn2 for block in transformer.transformer_blocks],
    hook=ProcessorHook("AttnProcessor2_0", "FusedAttnProcessor2_0"),
    read=latent_inputs,
    places=text_apart,
    stream=_stream,
    texts=(TextRun("tokenizer", "text_encoder"),),
    lower_case=True,
)
