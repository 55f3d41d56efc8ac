"""Stable Diffusion 3 and 3.5: joint attention, image tokens then text tokens (CLIP, then T5).

There is no mask. The `attn2` that some blocks of 3.5 have is image self-attention, not watched.
"""

from typing import Final

from attnsearch.models.families.contract import Family, TextPlace, TextRun, latent_grid

SD3: Final = Family(
    name="SD3",
    transformer="SD3Transformer2DModel",
    text=TextPlace.LAST,
    processors=("JointAttnProcessor2_0",),
    attention=lambda transformer: [block.attn for block in transformer.transformer_blocks],
    grid=latent_grid,
    texts=(
        TextRun("tokenizer", "text_encoder"),
        TextRun("tokenizer_3", "text_encoder_3"),
    ),
)
