"""HunyuanDiT: cross attention `attn2`; the keys are BERT tokens, then T5 tokens.

There is no mask: a padding token is replaced by a learned embedding, which is attended like any
other.
"""

from typing import Final

from attnsearch.models.families.contract import Family, TextPlace, TextRun, latent_grid

HUNYUANDIT: Final = Family(
    name="HunyuanDiT",
    transformer="HunyuanDiT2DModel",
    text=TextPlace.APART,
    processors=("HunyuanAttnProcessor2_0", "FusedHunyuanAttnProcessor2_0"),
    attention=lambda transformer: [block.attn2 for block in transformer.blocks],
    grid=latent_grid,
    texts=(
        TextRun("tokenizer", "text_encoder"),
        TextRun("tokenizer_2", "text_encoder_2"),
    ),
)
