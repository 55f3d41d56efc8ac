"""Stable Diffusion 3 and 3.5: joint attention, image tokens then text tokens (CLIP, then T5).

There is no mask. The `attn2` that some blocks of 3.5 have is image self-attention, not watched.
"""

from typing import Final

from attnsearch.axes import Site
from attnsearch.models.families.contract import Family, TextRun, latent_inputs, text_last
from attnsearch.models.families.processors import ProcessorHook

SD3: Final = Family(
    name="SD3",
    model="SD3Transformer2DModel",
    site=Site.JOINT,
    attention=lambda transformer: [block.attn for block in transformer.transformer_blocks],
    hook=ProcessorHook("JointAttnProcessor2_0"),
    read=latent_inputs,
    places=text_last,
    texts=(
        TextRun("tokenizer", "text_encoder"),
        TextRun("tokenizer_3", "text_encoder_3"),
    ),
)
