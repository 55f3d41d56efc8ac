"""Routes the text attention of a live model through a function of yours.

The one mechanism all families share. What is done with a call, and how many rows make a sample,
is the business of who calls `route`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from attnsearch.axes import Branch
from attnsearch.errors import ConfigError
from attnsearch.models.attention import (
    AttendFunction,
    AttentionCall,
    TokenPlaces,
    plain_attention,
)
from attnsearch.models.families.contract import (
    BranchLayout,
    Family,
    ForwardPass,
    Layer,
    one_branch,
)
from attnsearch.models.families.registry import find_family


@contextmanager
def route(
    model: nn.Module,
    attend: AttendFunction,
    *,
    layout: BranchLayout = one_branch,
    on_pass: Callable[[ForwardPass], None] | None = None,
) -> Iterator[None]:
    """Have `attend` compute every attention of image tokens to text inside the `with` block.

    `attend` gets one call per watched layer and forward pass, its fields all told. In joint
    attention the queries are the image tokens, the keys all tokens, and `text_keys` says which are
    text; attention of the other tokens is computed beside it and not shown. Steps are counted from
    0 on entering. `layout` says which rows are of which branch where the arguments of a forward
    pass do not (our own DiT names them). `on_pass` is told of every forward pass before its calls.
    The model is as before on leaving, also by an exception.

    Raises:
        ConfigError: on entering, no family serves the model, it is watched already, it is
            compiled, or a processor or attention backend cannot be watched. In a forward pass,
            what runs is not what the family declares; the message names the layer.
    """
    family = find_family(model)
    layers = family.layers(model)
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise ConfigError(f"{family.model} is compiled; attention is watched uncompiled only")
    for layer in layers:
        family.hook.check(layer, family.model)
    watch = _Watch(family, layers, attend, layout, on_pass)
    with ExitStack() as restore:
        for layer in layers:
            restore.enter_context(
                family.hook.installed(layer, family.model, partial(watch.attend, layer))
            )
        before = model.register_forward_pre_hook(watch.begin, with_kwargs=True)
        restore.callback(before.remove)
        restore.callback(model.register_forward_hook(watch.end).remove)
        restore.enter_context(_branch_names_read(model, watch))
        yield


def _forward_arguments(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The arguments of a forward pass by name, defaults included."""
    bound = inspect.signature(type(model).forward).bind(model, *args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


@contextmanager
def _branch_names_read(model: Any, watch: "_Watch") -> Iterator[None]:
    """Read along what pipelines tell the caches of a transformer: which branch a pass is for."""
    original = getattr(model, "cache_context", None)
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

    model.cache_context = cache_context
    try:
        yield
    finally:
        del model.cache_context


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
        self._seen: set[int] = set()

    def begin(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        read = self._family.read(model, _forward_arguments(model, args, kwargs))
        branches = read.branches or self._layout(read.rows, self.branch)
        names = {branch for branch, _ in branches}
        if names & self._branches_of_step:
            self._step += 1
            self._branches_of_step = set()
        self._branches_of_step |= names
        self._pass = ForwardPass(
            step=self._step,
            branches=branches,
            grid=read.grid,
            text_tokens=read.text_tokens,
        )
        self._seen.clear()
        if self._on_pass is not None:
            self._on_pass(self._pass)

    def end(self, model: nn.Module, args: Any, output: Any) -> None:
        self._pass = None
        missing = [layer.index for layer in self._layers if layer.index not in self._seen]
        if missing:
            raise ConfigError(
                f"{type(model).__name__} left out the attention of layers {missing}; skipped "
                "layers, cached layers and processors set meanwhile cannot be watched"
            )

    def attend(self, layer: Layer, call: AttentionCall) -> Tensor:
        """Takes the place of the attention of a layer."""
        where = f"layer {layer.index} of {self._family.model}"
        if self._pass is None:
            raise ConfigError(f"{where} runs outside a forward pass of the model")
        image, text, grid = self._family.places(layer, call, self._pass)
        queries = call.query.shape[2]
        tokens = len(range(*image.indices(queries))) if isinstance(image, slice) else image.shape[1]
        if tokens != prod(grid):
            others = queries - tokens
            raise ConfigError(
                f"{where} has {queries} queries where the image grid {grid} and {others} text "
                f"tokens in the sequence make {prod(grid) + others}; reference images and image "
                "prompts cannot be watched"
            )
        self._seen.add(layer.index)
        told = call._replace(
            branches=self._pass.branches, text_keys=text, grid=grid, step=self._pass.step
        )
        return _among_others(told, image, self._attend)


def _among_others(call: AttentionCall, image: TokenPlaces, attend: AttendFunction) -> Tensor:
    """The output of a call whose image queries alone go through `attend`."""
    query = call.query
    if isinstance(image, Tensor):
        places = image[:, None, :, None]
        output = plain_attention(call)
        shown = query.gather(2, places.expand(-1, query.shape[1], -1, query.shape[3]))
        attended = attend(call._replace(query=shown))
        return output.scatter(2, places.expand_as(attended), attended)
    start, stop, _ = image.indices(query.shape[2])
    parts = [
        plain_attention(call._replace(query=query[:, :, :start])) if start else None,
        attend(call._replace(query=query[:, :, start:stop])),
        plain_attention(call._replace(query=query[:, :, stop:])) if stop < query.shape[2] else None,
    ]
    there = [part for part in parts if part is not None]
    return there[0] if len(there) == 1 else torch.cat(there, dim=2)
