"""HunyuanDiT: cross attention `attn2`; the keys are BERT tokens, then T5 tokens.

There is no mask: a padding token is replaced by a learned embedding, which is attended like any
other.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from attnsearch.axes import Site
from attnsearch.models.families.contract import (
    Family,
    ForwardInputs,
    TextRun,
    latent_inputs,
    text_apart,
)
from attnsearch.models.families.processors import ProcessorHook


def _read(transformer: Any, arguments: Mapping[str, Any]) -> ForwardInputs:
    read = latent_inputs(transformer, arguments)
    return replace(
        read, text_tokens=read.text_tokens + arguments["encoder_hidden_states_t5"].shape[1]
    )


HUNYUANDIT: Final = Family(
    name="HunyuanDiT",
    model="HunyuanDiT2DModel",
    site=Site.CROSS,
    attention=lambda transformer: [block.attn2 for block in transformer.blocks],
    hook=ProcessorHook("HunyuanAttnProcessor2_0", "FusedHunyuanAttnProcessor2_0"),
    read=_read,
    places=text_apart,
    texts=(
        TextRun("tokenizer", "text_encoder"),
        TextRun("tokenizer_2", "text_encoder_2"),
    ),
)
