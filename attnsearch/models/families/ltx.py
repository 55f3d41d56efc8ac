"""LTX-Video: cross attention `attn2`, T5 tokens with a mask.

Latents arrive as a packed sequence; their grid comes with the call.
"""

from collections.abc import Mapping
from typing import Any, Final

from attnsearch.axes import Site
from attnsearch.errors import ConfigError
from attnsearch.models.families.contract import Family, ForwardInputs, text_apart
from attnsearch.models.families.processors import ProcessorHook


def _read(transformer: Any, arguments: Mapping[str, Any]) -> ForwardInputs:
    sides = tuple(arguments[name] for name in ("num_frames", "height", "width"))
    if None in sides:
        raise ConfigError(
            "LTXVideoTransformer3DModel is called without num_frames, height and width; "
            "conditioning on frames (video_coords) cannot be watched"
        )
    return ForwardInputs(
        rows=len(arguments["hidden_states"]),
        grid=sides,
        text_tokens=arguments["encoder_hidden_states"].shape[1],
    )


LTX: Final = Family(
    name="LTX-Video",
    model="LTXVideoTransformer3DModel",
    site=Site.CROSS,
    attention=lambda transformer: [block.attn2 for block in transformer.transformer_blocks],
    hook=ProcessorHook("LTXVideoAttnProcessor"),
    read=_read,
    places=text_apart,
)
