"""SANA and SANA-Sprint: cross attention `attn2`, Gemma tokens with a mask.

Its self-attention is linear and has no map. Cross attention has a head count of its own.
"""

from typing import Final

from attnsearch.axes import Site
from attnsearch.models.families.contract import Family, TextRun, latent_inputs, text_apart
from attnsearch.models.families.processors import ProcessorHook

SANA: Final = Family(
    name="SANA",
    model="SanaTransformer2DModel",
    site=Site.CROSS,
    attention=lambda transformer: [block.attn2 for block in transformer.transformer_blocks],
    hook=ProcessorHook("SanaAttnProcessor2_0"),
    read=latent_inputs,
    places=text_apart,
    texts=(TextRun("tokenizer", "text_encoder"),),
    lower_case=True,
)
