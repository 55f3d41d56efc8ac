"""Wan 2.1 and 2.2, text to video: cross attention `attn2`, UMT5 tokens without a mask.

Image-to-video models of 2.1 attend to image tokens in the same layers and are refused. The two
transformers of Wan 2.2 are watched one at a time.
"""

from typing import Final

from attnsearch.models.families.contract import Family, TextPlace, latent_grid

WAN: Final = Family(
    name="Wan",
    transformer="WanTransformer3DModel",
    text=TextPlace.APART,
    processors=("WanAttnProcessor",),
    attention=lambda transformer: [block.attn2 for block in transformer.blocks],
    grid=latent_grid,
    texts=(),
)
