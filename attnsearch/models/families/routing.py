"""Routes the text attention of a live diffusers transformer through a function of yours.

The one mechanism all families share. What is done with a call, and how many rows make a sample,
is the business of who calls `route`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from attnsearch.axes import Branch
from attnsearch.errors import ConfigError
from attnsearch.models.attention import AttendFunction, AttentionCall, plain_attention
from attnsearch.models.families.contract import (
    BranchLayout,
    Family,
    ForwardPass,
    Layer,
    TextPlace,
)
from attnsearch.models.families.registry import find_family
from attnsearch.models.families.sdpa import SdpaCall, WatchedProcessor, padding_mask

NATIVE_BACKEND = "native"


@contextmanager
def route(
    transformer: nn.Module,
    attend: AttendFunction,
    *,
    layout: BranchLayout,
    on_pass: Callable[[ForwardPass], None] | None = None,
) -> Iterator[None]:
    """Have `attend` compute every attention of image tokens to text inside the `with` block.

    `attend` gets calls as our own models make them, one per watched layer and forward pass. In
    joint attention the queries are the image tokens, the keys all tokens, and `text_keys` says
    which are text; attention of the text tokens is computed beside it and not shown. `on_pass`
    is told of every forward pass before its calls. The transformer is as before on leaving, also
    by an exception.

    Raises:
        ConfigError: on entering, no family serves the transformer, it is watched already, it is
            compiled, or a processor or attention backend cannot be watched. In a forward pass,
            what runs is not what the family declares; the message names processor and layer.
    """
    family = find_family(transformer)
    layers = family.layers(transformer)
    _refuse_unwatchable(family, layers, transformer)
    watch = _Watch(family, layers, attend, layout, on_pass)
    with ExitStack() as restore:
        for layer in layers:
            processor = layer.attention.processor
            where = f"{type(processor).__name__} of layer {layer.index} in {family.transformer}"
            restore.callback(layer.attention.set_processor, processor)
            layer.attention.set_processor(
                WatchedProcessor(processor, where, partial(watch.attend, layer, where))
            )
        before = transformer.register_forward_pre_hook(watch.begin, with_kwargs=True)
        restore.callback(before.remove)
        restore.callback(transformer.register_forward_hook(watch.end).remove)
        restore.enter_context(_branch_names_read(transformer, watch))
        yield


def forward_arguments(
    transformer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The arguments of a forward pass by name, defaults included."""
    bound = inspect.signature(type(transformer).forward).bind(transformer, *args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _refuse_unwatchable(family: Family, layers: tuple[Layer, ...], transformer: nn.Module) -> None:
    if any(module._compiled_call_impl is not None for module in transformer.modules()):
        raise ConfigError(f"{family.transformer} is compiled; attention is watched uncompiled only")
    for layer in layers:
        processor = layer.attention.processor
        name = type(processor).__name__
        if isinstance(processor, WatchedProcessor):
            raise ConfigError(f"{family.transformer} is watched already; captures do not nest")
        if name not in family.processors:
            raise ConfigError(
                f"layer {layer.index} of {family.transformer} has the attention processor {name}, "
                f"which cannot be watched; set {family.processors[0]}"
            )
        backend = getattr(processor, "_attention_backend", None)
        if backend not in (None, NATIVE_BACKEND):
            raise ConfigError(
                f"{name} of layer {layer.index} in {family.transformer} uses the attention backend "
                f"{getattr(backend, 'value', backend)}; call set_attention_backend('native') first"
            )


@contextmanager
def _branch_names_read(transformer: Any, watch: "_Watch") -> Iterator[None]:
    """Read along what pipelines tell the caches of a transformer: which branch a pass is for."""
    original = getattr(transformer, "cache_context", None)
    if original is None:
        yield
        return

    @contextmanager
    def cache_context(name: str, **kwargs: Any) -> Iterator[None]:
        watch.branch = Branch.UNCOND if name == Branch.UNCOND else Branch.COND
        try:
            with original(name, **kwargs):
                yield
        finally:
            watch.branch = Branch.COND

    transformer.cache_context = cache_context
    try:
        yield
    finally:
        del transformer.cache_context


class _Watch:
    """The forward pass that runs, the step it belongs to, and what becomes of its calls."""

    def __init__(
        self,
        family: Family,
        layers: tuple[Layer, ...],
        attend: AttendFunction,
        layout: BranchLayout,
        on_pass: Callable[[ForwardPass], None] | None,
    ) -> None:
        self.branch = Branch.COND
        self._family = family
        self._layers = layers
        self._attend = attend
        self._layout = layout
        self._on_pass = on_pass
        self._step = -1
        # As if a step were complete, so that the first pass begins step 0.
        self._branches_of_step: set[Branch] = set(Branch)
        self._pass: ForwardPass | None = None
        self._text_tokens = 0
        self._seen: set[int] = set()

    def begin(self, transformer: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        arguments = forward_arguments(transformer, args, kwargs)
        branches = self._layout(len(arguments["hidden_states"]), self.branch)
        names = {branch for branch, _ in branches}
        if names & self._branches_of_step:
            self._step += 1
            self._branches_of_step = set()
        self._branches_of_step |= names
        self._pass = ForwardPass(
            step=self._step,
            branches=branches,
            grid=self._family.grid(transformer, arguments),
        )
        self._text_tokens = arguments["encoder_hidden_states"].shape[1]
        self._seen.clear()
        if self._on_pass is not None:
            self._on_pass(self._pass)

    def end(self, transformer: nn.Module, args: Any, output: Any) -> None:
        self._pass = None
        missing = [layer.index for layer in self._layers if layer.index not in self._seen]
        if missing:
            raise ConfigError(
                f"{type(transformer).__name__} left out the attention of layers {missing}; skipped "
                "layers, cached layers and processors set meanwhile cannot be watched"
            )

    def attend(self, layer: Layer, where: str, call: SdpaCall) -> Tensor:
        """Takes the place of scaled_dot_product_attention."""
        if self._pass is None:
            raise ConfigError(f"{where} runs outside a forward pass of the transformer")
        image, text = self._places(self._pass, call.query, where)
        shown = AttentionCall(
            layer.index,
            layer.site,
            self._pass.branches,
            call.query[:, :, image],
            call.key,
            call.value,
            # As torch has it where none is given, to the last bit; `** -0.5` is not.
            1 / sqrt(call.query.shape[-1]) if call.scale is None else call.scale,
            padding_mask(call, where),
            text,
        )
        self._seen.add(layer.index)
        output = self._attend(shown)
        if text is None:
            return output
        of_text = plain_attention(shown._replace(query=call.query[:, :, text]))
        parts = (of_text, output) if text.start == 0 else (output, of_text)
        return torch.cat(parts, dim=2)

    def _places(
        self, running: ForwardPass, query: Tensor, where: str
    ) -> tuple[slice, slice | None]:
        """Where image tokens lie among the queries, and text tokens, if they lie there at all."""
        image_tokens = prod(running.grid)
        text_tokens = 0 if self._family.text is TextPlace.APART else self._text_tokens
        if query.shape[2] != image_tokens + text_tokens:
            raise ConfigError(
                f"{where} has {query.shape[2]} queries where the image grid {running.grid} and "
                f"{text_tokens} text tokens in the sequence make {image_tokens + text_tokens}; "
                "reference images and image prompts cannot be watched"
            )
        match self._family.text:
            case TextPlace.APART:
                return slice(0, image_tokens), None
            case TextPlace.FIRST:
                return slice(text_tokens, None), slice(0, text_tokens)
            case TextPlace.LAST:
                return slice(0, image_tokens), slice(image_tokens, None)
