"""Random calls of the operators, for the tests of every backend."""

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from attnsearch_kernels import Backend, MapStatistics, SketchedAttention, sketch_attention
from attnsearch_kernels import sketch_given_lse as given_lse
from attnsearch_kernels.reference import reference_float64


@dataclass(frozen=True)
class Call:
    """The arguments of one call; variants come from `dataclasses.replace`."""

    query: Tensor
    key: Tensor
    value: Tensor
    roles: Tensor
    basis: Tensor
    scale: float
    key_mask: Tensor | None

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.query, self.key, self.value, self.roles, self.basis

    def run(self, backend: Backend) -> SketchedAttention:
        return sketch_attention(
            *self.tensors(), scale=self.scale, key_mask=self.key_mask, backend=backend
        )

    def run_given_lse(self, backend: Backend) -> MapStatistics:
        query, key, _, roles, basis = self.tensors()
        return given_lse(
            query,
            key,
            roles,
            basis,
            self.lse(),
            scale=self.scale,
            key_mask=self.key_mask,
            backend=backend,
        )

    def lse(self) -> Tensor:
        """What another attention would hand over; -inf for rows without keys."""
        scores = self.scale * self.query.double() @ self.key.double().mT
        if self.key_mask is not None:
            scores = scores.masked_fill(~self.key_mask[:, None, None], -torch.inf)
        return scores.logsumexp(-1)

    def exact(self) -> SketchedAttention:
        return reference_float64(*self.tensors(), scale=self.scale, key_mask=self.key_mask)

    def cast(self, dtype: torch.dtype) -> "Call":
        query, key, value = (x.to(dtype) for x in (self.query, self.key, self.value))
        return replace(self, query=query, key=key, value=value)


def make_call(
    *,
    batch: int = 3,
    heads: int = 2,
    tokens: int = 20,
    keys: int = 7,
    channels: int = 8,
    roles: int = 8,
    columns: int = 9,
    lengths: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Call:
    """A random call; every token has one role, `lengths` are the text lengths of the rows."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    role_of_token = torch.randint(0, roles, (batch, keys), generator=generator)
    return Call(
        query=2 * normal(batch, heads, tokens, channels),
        key=2 * normal(batch, heads, keys, channels),
        value=normal(batch, heads, keys, channels),
        roles=(role_of_token[..., None] == torch.arange(roles)).float(),
        basis=torch.linalg.qr(normal(tokens, columns)).Q,
        scale=channels**-0.5,
        key_mask=None if lengths is None else _prefix_mask(lengths, keys),
    )


def _prefix_mask(lengths: tuple[int, ...], keys: int) -> Tensor:
    return torch.arange(keys) < torch.tensor(lengths)[:, None]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Calls of any small shape, masks with holes and rows without keys included."""
    batch, keys = draw(st.integers(1, 3)), draw(st.integers(0, 9))
    call = make_call(
        batch=batch,
        heads=draw(st.integers(1, 3)),
        tokens=draw(st.integers(1, 17)),
        keys=keys,
        channels=draw(st.integers(1, 9)),
        roles=draw(st.integers(1, 8)),
        columns=draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 2**16)),
    )
    attended = st.lists(st.booleans(), min_size=batch * keys, max_size=batch * keys)
    mask = draw(st.none() | attended.map(lambda flat: torch.tensor(flat, dtype=torch.bool)))
    return replace(call, key_mask=None if mask is None else mask.reshape(batch, keys))
