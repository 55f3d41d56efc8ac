"""Wan 2.1 and 2.2, text to video: cross attention `attn2`, UMT5 tokens without a mask.

Image-to-video models of 2.1 attend to image tokens in the same layers and are refused. The two
transformers of Wan 2.2 are watched one at a time.
"""

from typing import Final

from attnsearch.axes import Site
from attnsearch.models.families.contract import Family, latent_inputs, text_apart
from attnsearch.models.families.processors import ProcessorHook

WAN: Final = Family(
    name="Wan",
    model="WanTransformer3DModel",
    site=Site.CROSS,
    attention=lambda transformer: [block.attn2 for block in transformer.blocks],
    hook=ProcessorHook("WanAttnProcessor"),
    read=latent_inputs,
    places=text_apart,
)
