"""Plain torch, the map stored as [key, query]: the fast path of a CPU, and a path anywhere.

Rows of a cross-attention map are short (10 to 120 text tokens) and there are many of them, so the
transpose gives long contiguous vectors for the exponential and the reductions, and it is already
the layout the role contraction wants. Always float32: plain torch is several times slower in
half precision on most CPUs. The algebra is derived in the README of this folder.
"""

from itertools import repeat
from math import log

import torch
from torch import Tensor

from attnsearch_kernels.contract import MapStatistics, SketchedAttention

MAP_ENTRIES_PER_CHUNK = 2**18
"""Map entries worked on at a time: two float32 buffers of this size stay in a 2 MiB cache."""

MAP_ENTRIES_WORTH_A_CALL = 2**14
"""From here on, one batch row at a time is cheaper than copying rows to have more at once."""

EXCLUDED_SCORE = -1e30
"""Score of a key that may not be attended. Finite, because entropy multiplies it by zero."""


def sketch_attention_plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
) -> SketchedAttention:
    """Sketch attention in float32; arguments as in `sketch_attention`."""
    batch, heads, tokens, _ = query.shape
    groups = roles.shape[2]
    output, role_mass, entropy, peak = (
        torch.empty(shape, dtype=torch.float32, device=query.device)
        for shape in (
            query.shape,
            (batch, heads, groups, tokens),
            (batch, heads, tokens),
            (batch, heads, tokens),
        )
    )
    if key.shape[2] == 0:
        for buffer in (output, role_mass, entropy, peak):
            buffer.zero_()
    else:
        # Base 2: torch's exp falls off its fast path on excluded scores, exp2 does not.
        scaled_key = key.float() * (scale / log(2))
        weights = _per_head(roles.float().mT, heads)
        size = _chunk_size(query, key.shape[2])
        pieces = (
            _maps(tensor, size)
            for tensor in (query, scaled_key, value, weights, output, role_mass, entropy, peak)
        )
        masks = repeat(None) if key_mask is None else _maps(_key_mask(key_mask, heads), size)
        for q, k, v, w, out, mass, s, p, mask in zip(*pieces, masks, strict=False):
            attention = _softmax_over_keys(q.float(), k, mask, entropy=s, peak=p)
            torch.bmm(w, attention, out=mass)
            torch.bmm(attention.mT, v.float(), out=out)
    statistics = _statistics(role_mass, entropy, peak, basis)
    return SketchedAttention(output.to(query.dtype), *statistics)


def sketch_given_lse_plain(
    query: Tensor,
    key: Tensor,
    roles: Tensor,
    basis: Tensor,
    lse: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None = None,
) -> MapStatistics:
    """Statistics of a map in float32; arguments as in `sketch_given_lse`."""
    batch, heads, tokens, _ = query.shape
    role_mass, entropy, peak = (
        torch.zeros(shape, dtype=torch.float32, device=query.device)
        for shape in (
            (batch, heads, roles.shape[2], tokens),
            (batch, heads, tokens),
            (batch, heads, tokens),
        )
    )
    if key.shape[2] > 0:
        negated_key = key.float() * (-scale / log(2))
        weights = _per_head(roles.float().mT, heads)
        # Of a row without keys the log-sum-exp is infinite, and its share of everything zero.
        lse = torch.where(lse.isfinite(), lse.float() / log(2), -EXCLUDED_SCORE)[:, :, None]
        size = _chunk_size(query, key.shape[2])
        pieces = (
            _maps(tensor, size)
            for tensor in (query, negated_key, lse, weights, role_mass, entropy, peak)
        )
        masks = repeat(None) if key_mask is None else _maps(_key_mask(key_mask, heads), size)
        for q, k, row_lse, w, mass, s, p, mask in zip(*pieces, masks, strict=False):
            surprise = torch.baddbmm(row_lse, k, q.float().mT)
            if mask is not None:
                surprise.sub_(_bias(mask))
            attention = surprise.neg().exp2_()
            torch.bmm(w, attention, out=mass)
            torch.amax(attention, 1, out=p)
            torch.sum(surprise.mul_(attention), 1, out=s)
        entropy.mul_(log(2))
    return _statistics(role_mass, entropy, peak, basis)


def _softmax_over_keys(
    query: Tensor, key: Tensor, mask: Tensor | None, *, entropy: Tensor, peak: Tensor
) -> Tensor:
    """The map `[map, key, query]` of queries `[map, query, channel]` and base-2 scaled keys.

    Fills `entropy` and `peak` `[map, query]`. `mask` `[map, key, 1]` is True for attended keys.
    """
    queries = query.mT
    # Excluding keys within the product saves a pass over the scores.
    scores = torch.bmm(key, queries) if mask is None else torch.baddbmm(_bias(mask), key, queries)
    scores.sub_(scores.amax(1, keepdim=True))
    attention = scores.exp2()
    total = attention.sum(1)
    expected_score = scores.mul_(attention).sum(1).div_(total)
    torch.sub(total.log2(), expected_score, out=entropy).mul_(log(2))
    torch.reciprocal(total, out=peak)
    if mask is not None:
        # Without a key every score is equal: the uniform map that results is not the contract's.
        has_key = mask.any(1)
        entropy.mul_(has_key)
        peak.mul_(has_key)
    return attention.mul_(peak[:, None])


def _statistics(role_mass: Tensor, entropy: Tensor, peak: Tensor, basis: Tensor) -> MapStatistics:
    """From role mass `[B, H, G, N]`, entropy and peak `[B, H, N]`."""
    return MapStatistics(
        sketch=(role_mass @ basis.float()).mT.contiguous(),
        entropy=entropy,
        peak=peak,
        energy=role_mass.square().sum(-1),
    )


def _chunk_size(query: Tensor, keys: int) -> tuple[int, int]:
    """How many batch rows, and how many of their heads, are worked on at a time."""
    batch, heads, tokens, _ = query.shape
    of_a_map = max(1, keys * tokens)
    if of_a_map * heads > MAP_ENTRIES_PER_CHUNK:
        return 1, max(1, MAP_ENTRIES_PER_CHUNK // of_a_map)
    in_order = query.stride(0) == heads * query.stride(1)
    if not in_order and of_a_map * heads >= MAP_ENTRIES_WORTH_A_CALL:
        return 1, heads
    return max(1, min(batch, MAP_ENTRIES_PER_CHUNK // (of_a_map * heads))), heads


def _maps(tensor: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """The chunks of `[B, H, ...]`, each as `[map, ...]`; of a contiguous tensor they are views."""
    rows, heads = size
    parts = tensor.split(rows)
    if heads < tensor.shape[1]:
        parts = tuple(piece for part in parts for piece in part.split(heads, dim=1))
    return [part.flatten(0, 1) for part in parts]


def _bias(mask: Tensor) -> Tensor:
    """What to add to scores: zero where the mask is True, `EXCLUDED_SCORE` elsewhere."""
    return torch.where(mask, 0.0, EXCLUDED_SCORE)


def _key_mask(mask: Tensor, heads: int) -> Tensor:
    """`[B, M]` as `[B, H, M, 1]`."""
    return _per_head(mask[:, :, None], heads)


def _per_head(tensor: Tensor, heads: int) -> Tensor:
    """`[B, ...]` repeated for every head, as `[B, H, ...]`."""
    return tensor[:, None].expand(-1, heads, *tensor.shape[1:])
