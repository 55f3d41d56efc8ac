"""PixArt-alpha and PixArt-Sigma: cross attention `attn2` of every block, T5 tokens with a mask."""

from typing import Final

from attnsearch.models.families.contract import Family, TextPlace, TextRun, latent_grid

PIXART: Final = Family(
    name="PixArt",
    transformer="PixArtTransformer2DModel",
    text=TextPlace.APART,
    processors=("AttnProcessor2_0", "FusedAttnProcessor2_0"),
    attention=lambda transformer: [block.attn2 for block in transformer.transformer_blocks],
    grid=latent_grid,
    texts=(TextRun("tokenizer", "text_encoder"),),
    lower_case=True,
)
