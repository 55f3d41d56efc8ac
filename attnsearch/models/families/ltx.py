"""LTX-Video: cross attention `attn2`, T5 tokens with a mask.

Latents arrive as a packed sequence; their grid comes with the call.
"""

from collections.abc import Mapping
from typing import Any, Final

from attnsearch.errors import ConfigError
from attnsearch.models.families.contract import Family, TextPlace


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    sides = tuple(arguments[name] for name in ("num_frames", "height", "width"))
    if None in sides:
        raise ConfigError(
            "LTXVideoTransformer3DModel is called without num_frames, height and width; "
            "conditioning on frames (video_coords) cannot be watched"
        )
    return sides


LTX: Final = Family(
    name="LTX-Video",
    transformer="LTXVideoTransformer3DModel",
    text=TextPlace.APART,
    processors=("LTXVideoAttnProcessor",),
    attention=lambda transformer: [block.attn2 for block in transformer.transformer_blocks],
    grid=_grid,
    texts=(),
)
