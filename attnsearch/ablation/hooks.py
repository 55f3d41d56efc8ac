"""Cross-attention heads of a live model of any family, switched off inside a `with` block."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attnsearch.ablation.request import Ablation, Mode
from attnsearch.axes import Branch, HeadAddress, Site
from attnsearch.errors import ConfigError
from attnsearch.models.attention import AttentionCall, plain_attention
from attnsearch.models.families import (
    BranchLayout,
    find_family,
    guidance_layout,
    one_branch,
    route,
)

MeanOutputs = dict[tuple[int, int], Tensor]
"""By step and layer: what the heads put out, [head, query, channel], mean over samples."""


class Part(NamedTuple):
    """Some samples of a batch, and what is switched off for them."""

    ablation: Ablation
    samples: slice = slice(None)
    source: Tensor | None = None
    """[sample] of the batch whose outputs take the place, for modes that borrow; these samples
    belong to no part."""


Hidden = Tensor | Callable[[int], Tensor]
"""[sample, token] bool, which tokens a head may not attend to; or a function to it from the number
of text tokens, for where the first call tells that."""


@contextmanager
def ablated(
    model: nn.Module,
    parts: Sequence[Part],
    *,
    means: MeanOutputs | None = None,
    hidden: Hidden | None = None,
    samples: int | None = None,
) -> Iterator[None]:
    """Switch heads off for the images sampled inside; each block is one batch, from step 0.

    `model` is of a family of `models.families`. `means` are those of `mean_outputs`, for
    `Mode.MEAN`; `hidden` says which tokens a head may not attend to, for `Mode.MASK`. `samples` is
    the size of the batch, for a model whose forward pass does not name the branches of guidance.
    The model is restored on leaving, also by an exception.

    Raises:
        ConfigError: the model has no such head, its attention is joint, what the mode needs is not
            given, `into` is asked of a model that does not read the raw stream, or the means have
            no such step; or as of `families.route`.
    """
    family = find_family(model)
    if family.site is not Site.CROSS:
        raise ConfigError(f"{family.model} has no cross-attention to ablate")
    layers = family.layers(model)
    for part in parts:
        check_heads(part.ablation, [layer.heads for layer in layers])
        _check_given(part, means, hidden)
    stream = None
    if any(part.ablation.into for part in parts):
        stream = _Stream(model)
    switch = _Switch(parts, stream, means, hidden)
    with route(model, switch.attend, layout=_layout(samples)):
        yield


def _layout(samples: int | None) -> BranchLayout:
    return one_branch if samples is None else guidance_layout(samples)


class _Stream:
    """What heads write to the residual stream, and what the queries of later ones read of it."""

    def __init__(self, model: nn.Module) -> None:
        """Weights are read when asked for, where they are then.

        Raises:
            ConfigError: its queries do not read the raw stream.
        """
        self._model = model
        self._family = find_family(model)
        if self._family.stream is None:
            raise ConfigError(f"what heads of {self._family.model} read of others is not known")
        self._projections = self._family.stream(model).projections
        self._layers = self._family.layers(model)

    def written(self, layer: int, own: Sequence[int], outputs: Tensor) -> Tensor:
        """What outputs of some heads [row, head, query, channel] add to the stream, no bias."""
        at = self._layers[layer]
        weight = self._family.output(self._model, at).unflatten(1, (at.heads, -1))
        return torch.einsum("rhqc,whc->rqw", outputs, weight[:, own])

    def read(self, layer: int, stream: Tensor) -> Tensor:
        """Queries [row, head, query, channel] of a part of the stream [row, query, width]."""
        at = self._layers[layer]
        weight = self._projections(at.attention).query.weight
        assert isinstance(weight, Tensor)
        read = torch.einsum("rqw,cw->rqc", stream, weight)
        return read.unflatten(-1, (at.heads, -1)).transpose(1, 2)


class _Switch:
    """Computes attention as it is without some heads; state lasts from layer 0 to the last."""

    def __init__(
        self,
        parts: Sequence[Part],
        stream: _Stream | None,
        means: MeanOutputs | None,
        hidden: Hidden | None,
    ) -> None:
        """`stream` is for ablations into other heads alone."""
        self._parts, self._stream = parts, stream
        self._means, self._hidden = means, hidden
        self._lost: dict[tuple[int, Branch], Tensor] = {}

    def attend(self, call: AttentionCall) -> Tensor:
        """The output [row, head, query, channel] of one call."""
        parts = [(n, part) for n, part in enumerate(self._parts) if part.ablation.is_on(call.step)]
        if call.layer == 0:
            self._lost.clear()
        for number, part in parts:
            targets = _in_layer(part.ablation.into, call.layer)
            for branch, rows in call.branches:
                if targets and self._stream is not None and (number, branch) in self._lost:
                    unread = self._stream.read(call.layer, self._lost[number, branch])
                    query = call.query.clone()
                    query[rows][part.samples][:, targets] -= unread[:, targets]
                    call = call._replace(query=query)
        output = plain_attention(call)
        changed = output
        for number, part in parts:
            own = _in_layer(part.ablation.heads, call.layer)
            for branch, rows in call.branches:
                if not own or branch not in part.ablation.branches:
                    continue
                instead = self._replacement(call, output, rows, own, part)
                if part.ablation.into and self._stream is not None:
                    difference = output[rows][part.samples][:, own] - instead
                    written = self._stream.written(call.layer, own, difference)
                    self._lost[number, branch] = self._lost.get((number, branch), 0) + written
                    continue
                changed = output.clone() if changed is output else changed
                changed[rows][part.samples][:, own] = instead
        return changed

    def _replacement(
        self, call: AttentionCall, output: Tensor, rows: slice, own: Sequence[int], part: Part
    ) -> Tensor:
        """What heads put out instead, to be broadcast to [row, head, query, channel]."""
        mode = part.ablation.mode
        if mode is Mode.MEAN and self._means is not None:
            if (call.step, call.layer) not in self._means:
                raise ConfigError(f"there are no mean outputs of step {call.step}")
            return self._means[call.step, call.layer][own]
        if mode is Mode.MASK and self._hidden is not None:
            if not isinstance(self._hidden, Tensor):
                self._hidden = self._hidden(call.text_tokens).to(call.query.device)
            hidden = self._hidden
            kept = ~hidden if call.key_mask is None else call.key_mask[rows] & ~hidden
            query, key, value = (
                each[rows][part.samples][:, own] for each in (call.query, call.key, call.value)
            )
            return plain_attention(
                call._replace(query=query, key=key, value=value, key_mask=kept[part.samples])
            )
        if mode.borrows and part.source is not None:
            return output[rows][part.source][:, own]
        if mode is Mode.SCALE:
            return output[rows][part.samples][:, own] * part.ablation.factor
        return torch.zeros((), dtype=call.value.dtype, device=call.value.device)


@contextmanager
def mean_outputs(
    model: nn.Module, into: MeanOutputs, counts: dict[tuple[int, int], int]
) -> Iterator[None]:
    """Add what the heads put out for the samples of a batch, of the conditional branch, to means.

    `counts` has how many samples are in `into`; both are filled in place, batch after batch.
    """

    def attend(call: AttentionCall) -> Tensor:
        output = plain_attention(call)
        (rows,) = (rows for branch, rows in call.branches if branch is Branch.COND)
        key, batch = (call.step, call.layer), output[rows]
        before = counts.get(key, 0)
        counts[key] = before + len(batch)
        mean = into.get(key, torch.zeros_like(batch[0]))
        into[key] = mean + (batch.sum(0) - len(batch) * mean) / counts[key]
        return output

    with route(model, attend):
        yield


def check_heads(ablation: Ablation, heads: Sequence[int]) -> None:
    """Refuse heads that a model with so many per layer has not.

    Raises:
        ConfigError: naming the first.
    """
    for head in sorted(ablation.heads | ablation.into):
        if head.layer >= len(heads) or head.head >= heads[head.layer]:
            raise ConfigError(
                f"there is no head {head}: the model has {len(heads)} layers of {heads[0]} heads"
            )


def _check_given(part: Part, means: MeanOutputs | None, hidden: Hidden | None) -> None:
    ablation = part.ablation
    if not ablation.heads:
        return
    if ablation.mode is Mode.MEAN and means is None:
        raise ConfigError("a mean ablation needs the mean outputs of the heads")
    if ablation.mode is Mode.MASK and hidden is None:
        raise ConfigError("a mask ablation needs the tokens to hide")
    if ablation.mode.borrows and part.source is None:
        raise ConfigError(f"a {ablation.mode} ablation needs the samples to take outputs from")


def _in_layer(heads: frozenset[HeadAddress], layer: int) -> list[int]:
    return sorted(head.head for head in heads if head.layer == layer)
