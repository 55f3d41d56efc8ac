"""Cross-attention heads of a live model, switched off inside a `with` block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from attnsearch.ablation.request import Ablation, Mode
from attnsearch.axes import Branch, HeadAddress, Site
from attnsearch.errors import ConfigError
from attnsearch.models import Attention, DiT
from attnsearch.models.attention import AttentionCall, plain_attention
from attnsearch.models.routing import routed

MeanOutputs = dict[tuple[int, int], Tensor]
"""By step and layer: what the heads put out, [head, query, channel], mean over samples."""


class Part(NamedTuple):
    """Some samples of a batch, and what is switched off for them."""

    ablation: Ablation
    samples: slice = slice(None)
    source: Tensor | None = None
    """[sample] of the batch whose outputs take the place, for modes that borrow; these samples
    belong to no part."""


@contextmanager
def ablated(
    model: DiT,
    parts: Sequence[Part],
    *,
    means: MeanOutputs | None = None,
    hidden: Tensor | None = None,
) -> Iterator[None]:
    """Switch heads off for the images sampled inside; each block is one batch, from step 0.

    `means` are those of `mean_outputs`, for `Mode.MEAN`; `hidden` [sample, token] bool says which
    tokens a head may not attend to, for `Mode.MASK`. The model is restored on leaving, also by an
    exception.

    Raises:
        ConfigError: the model has no such head, something else routes its attention, what the mode
            needs is not given, or the means have no such step.
    """
    modules = model.attention_modules(Site.CROSS)
    for part in parts:
        check_heads(part.ablation, [module.heads for module in modules])
        _check_given(part, means, hidden)
    with routed(model, Switch(parts, modules, means=means, hidden=hidden).attend):
        yield


class Switch:
    """Computes attention as it is without some heads; state lasts from layer 0 to the last."""

    def __init__(
        self,
        parts: Sequence[Part],
        modules: Sequence[Attention],
        *,
        means: MeanOutputs | None = None,
        hidden: Tensor | None = None,
    ) -> None:
        """`modules`, by layer, are read for ablations into other heads alone."""
        self._parts, self._modules = parts, modules
        self._means, self._hidden = means, hidden
        self._lost: dict[tuple[int, Branch], Tensor] = {}

    def attend(self, call: AttentionCall, step: int) -> Tensor:
        """The output [row, head, query, channel] of one call."""
        parts = [(n, part) for n, part in enumerate(self._parts) if part.ablation.is_on(step)]
        if call.layer == 0:
            self._lost.clear()
        for number, part in parts:
            targets = _in_layer(part.ablation.into, call.layer)
            for branch, rows in call.branches:
                if targets and (number, branch) in self._lost:
                    module, lost = self._modules[call.layer], self._lost[number, branch]
                    call = _unread(call, rows, part, targets, lost, module)
        output = plain_attention(call)
        changed = output
        for number, part in parts:
            own = _in_layer(part.ablation.heads, call.layer)
            for branch, rows in call.branches:
                if not own or branch not in part.ablation.branches:
                    continue
                instead = _replacement(
                    call, output, rows, own, step, part, self._means, self._hidden
                )
                if part.ablation.into:
                    difference = output[rows][part.samples][:, own] - instead
                    written = _written(self._modules[call.layer], own, difference)
                    self._lost[number, branch] = self._lost.get((number, branch), 0) + written
                    continue
                changed = output.clone() if changed is output else changed
                changed[rows][part.samples][:, own] = instead
        return changed


@contextmanager
def mean_outputs(
    model: DiT, into: MeanOutputs, counts: dict[tuple[int, int], int]
) -> Iterator[None]:
    """Add what the heads put out for the samples of a batch, of the conditional branch, to means.

    `counts` has how many samples are in `into`; both are filled in place, batch after batch.
    """

    def attend(call: AttentionCall, step: int) -> Tensor:
        output = plain_attention(call)
        (rows,) = (rows for branch, rows in call.branches if branch is Branch.COND)
        key, batch = (step, call.layer), output[rows]
        before = counts.get(key, 0)
        counts[key] = before + len(batch)
        mean = into.get(key, torch.zeros_like(batch[0]))
        into[key] = mean + (batch.sum(0) - len(batch) * mean) / counts[key]
        return output

    with routed(model, attend):
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


def _check_given(part: Part, means: MeanOutputs | None, hidden: Tensor | None) -> None:
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


def _written(module: Attention, own: Sequence[int], outputs: Tensor) -> Tensor:
    """What outputs of some heads [row, head, query, channel] add to the stream, no bias."""
    by_head = module.out.weight.unflatten(1, (module.heads, -1))[:, own]
    return torch.einsum("rhqc,whc->rqw", outputs, by_head)


def _unread(
    call: AttentionCall,
    rows: slice,
    part: Part,
    targets: Sequence[int],
    lost: Tensor,
    module: Attention,
) -> AttentionCall:
    """The call with queries of some heads that did not read [row, query, width] of the stream."""
    read = torch.einsum("rqw,cw->rqc", lost, module.query.weight)
    by_head = read.unflatten(-1, (module.heads, -1)).transpose(1, 2)
    query = call.query.clone()
    query[rows][part.samples][:, targets] -= by_head[:, targets]
    return call._replace(query=query)


def _replacement(
    call: AttentionCall,
    output: Tensor,
    rows: slice,
    own: Sequence[int],
    step: int,
    part: Part,
    means: MeanOutputs | None,
    hidden: Tensor | None,
) -> Tensor:
    """What heads put out instead, to be broadcast to [row, head, query, channel]."""
    mode = part.ablation.mode
    if mode is Mode.MEAN and means is not None:
        if (step, call.layer) not in means:
            raise ConfigError(f"there are no mean outputs of step {step}")
        return means[step, call.layer][own]
    if mode is Mode.MASK and hidden is not None:
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
