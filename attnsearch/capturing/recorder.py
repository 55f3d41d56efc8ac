"""Routes attention calls through sketch attention and hands the sketches to a sink.

The model's output is what it would have been, up to rounding, and no map outlives its call. What
a sink does with a record is its own business; nothing here knows of stores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from attnsearch.axes import Branch
from attnsearch.errors import ConfigError
from attnsearch.models import AttentionCall, plain_attention
from attnsearch.models.families import find_family, guidance_layout, route
from attnsearch_kernels import Backend, SketchedAttention, sketch_attention


@dataclass(frozen=True, slots=True)
class SketchRecord:
    """The sketches of one attention call under one branch."""

    step: int
    layer: int
    branch: Branch
    heads: tuple[int, ...]
    """Which heads the head axis holds, in order."""
    sketch: Tensor
    """[sample, head, role, basis] float32: transpose(Phi^T A Gamma)."""
    entropy: Tensor
    """[sample, head] float32, nats, mean over image tokens."""
    peak: Tensor
    """[sample, head] float32, largest attention of a row, mean over image tokens."""
    energy: Tensor
    """[sample, head, role] float32, sum over image tokens of (A Gamma)^2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to record; None records all. What is left out runs as plain attention."""

    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    steps: Sequence[int] | None = None
    branches: Sequence[Branch] | None = None


Sink = Callable[[SketchRecord], None]

Roles = Tensor | Mapping[Branch, Tensor]
"""Gamma [sample, text token, role]: of both branches alike, or of each."""


@contextmanager
def capture(
    model: nn.Module,
    *,
    roles: Roles,
    basis: Tensor,
    sink: Sink,
    selection: Selection | None = None,
    backend: Backend = Backend.AUTO,
) -> Iterator[None]:
    """Sketch the attention of image tokens to text inside the `with` block.

    `model` is of a family of `models.families`. `roles` are for the samples of a batch, in order.
    `basis` is Phi [image token, basis]. Steps are counted from 0 on entering; the passes of both
    branches of guidance belong to one. The model is restored on leaving, also by an exception.

    Raises:
        ConfigError: a selected layer or head does not exist, or as of `families.route`.
    """
    recorder = Recorder(roles, basis, sink, selection or Selection(), backend)
    layers = find_family(model).layers(model)
    check_selected(recorder.selection, len(layers), min(layer.heads for layer in layers))
    with route(model, recorder.attend, layout=guidance_layout(recorder.samples)):
        yield


def check_selected(selection: Selection, layers: int, heads: int) -> None:
    """Refuse layers and heads that a model with so many of them does not have.

    Raises:
        ConfigError: naming the first of them.
    """
    for name, asked, available in (
        ("layer", selection.layers, layers),
        ("head", selection.heads, heads),
    ):
        for index in asked or ():
            if not 0 <= index < available:
                raise ConfigError(f"{name} {index} does not exist; the model has {available}")


class Recorder:
    """The function attention calls go through."""

    def __init__(
        self, roles: Roles, basis: Tensor, sink: Sink, selection: Selection, backend: Backend
    ) -> None:
        self.selection = selection
        self._roles = roles
        self._basis = basis
        self._sink = sink
        self._backend = backend

    @property
    def samples(self) -> int:
        """Samples of a batch."""
        roles = self._roles
        return len(roles if isinstance(roles, Tensor) else next(iter(roles.values())))

    def attend(self, call: AttentionCall) -> Tensor:
        """The output of a call; its sketches go to the sink.

        Raises:
            ConfigError: the basis is not of its image tokens, or the roles are not those of its
                rows or of its text tokens.
        """
        if prod(call.grid) != len(self._basis):
            raise ConfigError(
                f"the basis is of {len(self._basis)} image tokens, the image has a grid of "
                f"{' x '.join(map(str, call.grid))}"
            )
        layers, steps, branches = (
            self.selection.layers, self.selection.steps, self.selection.branches
        )  # fmt: skip
        wanted = [rows for rows in call.branches if branches is None or rows[0] in branches]
        if (
            not wanted
            or (steps is not None and call.step not in steps)
            or (layers is not None and call.layer not in layers)
        ):
            return plain_attention(call)
        sketched = sketch_attention(
            call.query,
            call.key,
            call.value,
            self._roles_of(call),
            self._basis,
            scale=call.scale,
            key_mask=call.key_mask,
            backend=self._backend,
        )
        for branch, rows in wanted:
            self._sink(self._record(call, sketched, branch, rows))
        return sketched.output

    def _roles_of(self, call: AttentionCall) -> Tensor:
        """Gamma [row, key, role]; image tokens among the keys have no role."""
        rows, keys = len(call.query), call.key.shape[2]
        if rows != self.samples * len(call.branches):
            raise ConfigError(
                f"roles are given for {self.samples} samples, the batch has {rows} rows in "
                f"{len(call.branches)} branches"
            )
        known = self._roles
        roles = torch.cat(
            [known if isinstance(known, Tensor) else known[branch] for branch, _ in call.branches]
        )
        tokens = call.text_tokens
        if roles.shape[1] != tokens:
            raise ConfigError(
                f"roles are given for {roles.shape[1]} text tokens, the model reads {tokens}"
            )
        if call.text_keys is None:
            return roles
        if isinstance(call.text_keys, slice):
            gamma = roles.new_zeros(rows, keys, roles.shape[2])
            gamma[:, call.text_keys] = roles
            return gamma
        # One key more than there are takes the tokens that a row lacks: their place is -1.
        gamma = roles.new_zeros(rows, keys + 1, roles.shape[2])
        gamma[torch.arange(rows, device=roles.device)[:, None], call.text_keys] = roles
        return gamma[:, :keys].contiguous()

    def _record(
        self, call: AttentionCall, sketched: SketchedAttention, branch: Branch, rows: slice
    ) -> SketchRecord:
        heads = self.selection.heads
        chosen = tuple(range(call.query.shape[1])) if heads is None else tuple(heads)
        pick = slice(None) if heads is None else list(chosen)
        return SketchRecord(
            step=call.step,
            layer=call.layer,
            branch=branch,
            heads=chosen,
            sketch=sketched.sketch[rows, pick].transpose(-1, -2),
            entropy=sketched.entropy[rows, pick].mean(-1),
            peak=sketched.peak[rows, pick].mean(-1),
            energy=sketched.energy[rows, pick],
        )
