"""The hook of diffusers: the one attention call inside a processor is computed elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from typing import Any, Final

from torch import Tensor

from attnsearch.errors import ConfigError
from attnsearch.models.attention import AttendFunction, AttentionCall
from attnsearch.models.families.contract import Layer
from attnsearch.models.families.sdpa import SdpaCall, WatchedProcessor, padding_mask

_NATIVE_BACKEND: Final = "native"


class ProcessorHook:
    """Watches attention modules whose processor is of a known class."""

    def __init__(self, *processors: str) -> None:
        """Names of processor classes that make exactly one scaled_dot_product_attention call."""
        self._processors = processors

    def check(self, layer: Layer, model: str) -> None:
        """Refuse a module that cannot be watched.

        Raises:
            ConfigError: it is watched already, or has an unknown processor or attention backend.
        """
        processor = layer.attention.processor
        name = type(processor).__name__
        if isinstance(processor, WatchedProcessor):
            raise ConfigError(f"{model} is watched already; captures do not nest")
        if name not in self._processors:
            raise ConfigError(
                f"layer {layer.index} of {model} has the attention processor {name}, which cannot "
                f"be watched; set {self._processors[0]}"
            )
        backend = getattr(processor, "_attention_backend", None)
        if backend not in (None, _NATIVE_BACKEND):
            raise ConfigError(
                f"{name} of layer {layer.index} in {model} uses the attention backend "
                f"{getattr(backend, 'value', backend)}; call set_attention_backend('native') first"
            )

    @contextmanager
    def installed(self, layer: Layer, model: str, attend: AttendFunction) -> Iterator[None]:
        """Have `attend` compute the attention of a module inside the `with` block."""
        processor: Any = layer.attention.processor
        where = f"{type(processor).__name__} of layer {layer.index} in {model}"

        def replacement(call: SdpaCall) -> Tensor:
            return attend(
                AttentionCall(
                    layer=layer.index,
                    site=layer.site,
                    branches=(),
                    query=call.query,
                    key=call.key,
                    value=call.value,
                    # As torch has it where none is given, to the last bit; `** -0.5` is not.
                    scale=1 / sqrt(call.query.shape[-1]) if call.scale is None else call.scale,
                    key_mask=padding_mask(call, where),
                )
            )

        try:
            layer.attention.set_processor(WatchedProcessor(processor, where, replacement))
            yield
        finally:
            layer.attention.set_processor(processor)
