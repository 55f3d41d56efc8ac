"""Our own DiT: cross-attention of every block, token vectors with a mask.

No pipeline has it. The arguments of its forward pass name the branches of guidance.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from torch import Tensor

from attnsearch.axes import Site
from attnsearch.errors import ConfigError
from attnsearch.models.attention import AttendFunction, Attention, plain_attention
from attnsearch.models.dit import DiT
from attnsearch.models.families.contract import (
    Family,
    ForwardInputs,
    Layer,
    Projections,
    StreamReading,
    text_apart,
)


class _AttendHook:
    """Watches attention modules of ours, which call their `attend`."""

    def check(self, layer: Layer, model: str) -> None:
        """Refuse a module that is watched already."""
        if layer.attention.attend is not plain_attention:
            raise ConfigError(
                f"the attention of {model} is already routed elsewhere; captures and ablations do "
                "not nest"
            )

    @contextmanager
    def installed(self, layer: Layer, model: str, attend: AttendFunction) -> Iterator[None]:
        """Have `attend` compute the attention of a module inside the `with` block."""
        del model
        try:
            layer.attention.attend = attend
            yield
        finally:
            layer.attention.attend = plain_attention


def _read(model: DiT, arguments: Mapping[str, Any]) -> ForwardInputs:
    return ForwardInputs(
        rows=len(arguments["image"]),
        grid=(model.config.grid, model.config.grid),
        text_tokens=arguments["text"].shape[1],
        branches=arguments["branches"],
    )


def _output(model: DiT, layer: Layer) -> Tensor:
    del model
    weight: Tensor = layer.attention.out.weight
    return weight


def _projections(attention: Attention) -> Projections:
    return Projections(attention.query, attention.key, attention.value, attention.scale)


def _stream(model: DiT) -> StreamReading:
    return StreamReading(
        grid=(model.config.grid, model.config.grid),
        position=model.position,
        project_caption=model.caption_mlp,
        projections=_projections,
    )


DIT: Final = Family(
    name="DiT",
    model=DiT.__name__,
    part="",
    site=Site.CROSS,
    attention=lambda model: model.attention_modules(Site.CROSS),
    hook=_AttendHook(),
    channels=lambda attention: attention.query.out_features // attention.heads,
    output=_output,
    read=_read,
    places=text_apart,
    stream=_stream,
)
