"""SANA and SANA-Sprint: cross attention `attn2`, Gemma tokens with a mask.

Its self-attention is linear and has no map. Cross attention has a head count of its own.
"""

from typing import Final

from attnsearch.models.families.contract import Family, TextPlace, TextRun, latent_grid

SANA: Final = Family(
    name="SANA",
    transformer="SanaTransformer2DModel",
    text=TextPlace.APART,
    processors=("SanaAttnProcessor2_0",),
    attention=lambda transformer: [block.attn2 for block in transformer.transformer_blocks],
    grid=latent_grid,
    texts=(TextRun("tokenizer", "text_encoder"),),
    lower_case=True,
)
