"""Cross-attention heads of a live model, switched off inside a `with` block."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from attnsearch.axes import Branch, HeadAddress, Site
from attnsearch.errors import ConfigError
from attnsearch.models import DiT
from attnsearch.models.attention import AttentionCall, plain_attention

MeanOutputs = dict[tuple[int, int], Tensor]
"""By step and layer: what the heads put out, [head, query, channel], mean over samples."""


class Mode(StrEnum):
    """What takes the place of what a head puts out."""

    ZERO = "zero"
    """Nothing."""
    MEAN = "mean"
    """Its mean over prompts and seeds, at the same step and position."""
    MASK = "mask"
    """What it puts out when it may not attend to some words (arXiv 2601.06338)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Heads that are switched off together.

    Raises:
        ConfigError: the last step is before the first.
    """

    heads: frozenset[HeadAddress]
    """Of cross-attention."""
    mode: Mode = Mode.MEAN
    branches: frozenset[Branch] = frozenset({Branch.COND})
    """Of classifier-free guidance."""
    first_step: int = 0
    last_step: int | None = None
    """Inclusive; None for the last there is."""

    def __post_init__(self) -> None:
        if self.last_step is not None and self.last_step < self.first_step:
            raise ConfigError(
                f"the last step, {self.last_step}, is before the first, {self.first_step}"
            )

    def is_on(self, step: int) -> bool:
        """Whether the heads are off at this step."""
        return self.first_step <= step and (self.last_step is None or step <= self.last_step)


@contextmanager
def ablated(
    model: DiT,
    ablation: Ablation,
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
    if ablation.mode is Mode.MEAN and means is None and ablation.heads:
        raise ConfigError("a mean ablation needs the mean outputs of the heads")
    if ablation.mode is Mode.MASK and hidden is None and ablation.heads:
        raise ConfigError("a mask ablation needs the tokens to hide")
    modules = model.attention_modules(Site.CROSS)
    for head in sorted(ablation.heads):
        if head.layer >= len(modules) or head.head >= modules[head.layer].heads:
            raise ConfigError(
                f"there is no head {head}: the model has {len(modules)} layers of "
                f"{modules[0].heads} heads"
            )

    def attend(call: AttentionCall, step: int) -> Tensor:
        own = sorted(head.head for head in ablation.heads if head.layer == call.layer)
        output = plain_attention(call)
        if not own or not ablation.is_on(step):
            return output
        output = output.clone()
        for branch, rows in call.branches:
            if branch in ablation.branches:
                output[rows, own] = _replacement(call, rows, own, step, ablation, means, hidden)
        return output

    with _routed(model, attend):
        yield


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

    with _routed(model, attend):
        yield


def _replacement(
    call: AttentionCall,
    rows: slice,
    own: Sequence[int],
    step: int,
    ablation: Ablation,
    means: MeanOutputs | None,
    hidden: Tensor | None,
) -> Tensor:
    """What heads put out instead, to be broadcast to [row, head, query, channel]."""
    if ablation.mode is Mode.MEAN and means is not None:
        if (step, call.layer) not in means:
            raise ConfigError(f"there are no mean outputs of step {step}")
        return means[step, call.layer][own]
    if ablation.mode is Mode.MASK and hidden is not None:
        kept = ~hidden if call.key_mask is None else call.key_mask[rows] & ~hidden
        masked = call._replace(
            query=call.query[rows][:, own],
            key=call.key[rows][:, own],
            value=call.value[rows][:, own],
            key_mask=kept,
        )
        return plain_attention(masked)
    return torch.zeros((), dtype=call.value.dtype, device=call.value.device)


@contextmanager
def _routed(model: DiT, attend: Callable[[AttentionCall, int], Tensor]) -> Iterator[None]:
    modules = model.attention_modules(Site.CROSS)
    if any(module.attend is not plain_attention for module in modules):
        raise ConfigError(
            "the model's attention is already routed elsewhere; ablations do not nest"
        )
    step = -1

    def begin(*_: object) -> None:
        nonlocal step
        step += 1

    def routed(call: AttentionCall) -> Tensor:
        return attend(call, step)

    hook = model.register_forward_pre_hook(begin)
    try:
        for module in modules:
            module.attend = routed
        yield
    finally:
        hook.remove()
        for module in modules:
            module.attend = plain_attention
