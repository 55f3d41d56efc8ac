"""Plain torch, the map stored as [key, query]: the fast path of a CPU, and a path anywhere.

Rows of a cross-attention map are short (10 to 120 text tokens) and there are many of them, so the
transpose gives long contiguous vectors for the exponential and the reductions, and it is already
the layout the role contraction wants. Always float32: plain torch is several times slower in
half precision on most CPUs. The algebra is derived in the README of this folder.
"""

from math import log

import torch
from torch import Tensor

from attnsearch_kernels.contract import MapStatistics, SketchedAttention

MAP_ENTRIES_PER_CHUNK = 2**18
"""Map entries worked on at a time: two float32 buffers of this size stay in a 2 MiB cache."""

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
    batch, heads, tokens, channels = query.shape
    keys, groups = roles.shape[1:]
    maps = batch * heads
    output, role_mass, entropy, peak = (
        torch.empty(shape, dtype=torch.float32, device=query.device)
        for shape in (
            (maps, tokens, channels),
            (maps, groups, tokens),
            (maps, tokens),
            (maps, tokens),
        )
    )
    if keys == 0:
        for buffer in (output, role_mass, entropy, peak):
            buffer.zero_()
    else:
        _attend(
            query.float().reshape(maps, tokens, channels),
            # Base 2: torch's exp falls off its fast path on excluded scores, exp2 does not.
            (key.float() * (scale / log(2))).reshape(maps, keys, channels),
            value.float().reshape(maps, keys, channels),
            _per_head(roles.float().mT, heads),
            None if key_mask is None else _per_head(key_mask[:, :, None], heads),
            into=(output, role_mass, entropy, peak),
        )
    statistics = _statistics(role_mass, entropy, peak, basis, heads)
    return SketchedAttention(output.reshape(query.shape).to(query.dtype), *statistics)


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
    batch, heads, tokens, channels = query.shape
    keys, groups = roles.shape[1:]
    maps = batch * heads
    role_mass, entropy, peak = (
        torch.zeros(shape, dtype=torch.float32, device=query.device)
        for shape in ((maps, groups, tokens), (maps, tokens), (maps, tokens))
    )
    weights = _per_head(roles.float().mT, heads)
    mask = None if key_mask is None else _per_head(key_mask[:, :, None], heads)
    queries = query.float().reshape(maps, tokens, channels)
    scaled_keys = (key.float() * scale).reshape(maps, keys, channels)
    lse = lse.float().reshape(maps, 1, tokens)
    step = max(1, MAP_ENTRIES_PER_CHUNK // max(1, keys * tokens))
    for start in range(0, maps if keys else 0, step):
        chunk = slice(start, start + step)
        surprise = lse[chunk] - torch.bmm(scaled_keys[chunk], queries[chunk].mT)
        # Of a row without keys the log-sum-exp is infinite, and its share of everything zero.
        attended = lse[chunk].isfinite()
        if mask is not None:
            attended = attended & mask[chunk]
        surprise.masked_fill_(~attended, -EXCLUDED_SCORE)
        attention = surprise.neg().exp_()
        torch.bmm(weights[chunk], attention, out=role_mass[chunk])
        torch.amax(attention, 1, out=peak[chunk])
        torch.sum(surprise.mul_(attention), 1, out=entropy[chunk])
    return _statistics(role_mass, entropy, peak, basis, heads)


def _statistics(
    role_mass: Tensor, entropy: Tensor, peak: Tensor, basis: Tensor, heads: int
) -> MapStatistics:
    """From role mass `[map, role, query]`, entropy and peak `[map, query]`."""
    maps, groups, tokens = role_mass.shape
    rows = (maps // heads if heads else 0, heads)
    sketch = role_mass.reshape(-1, tokens) @ basis.float()
    return MapStatistics(
        sketch=sketch.reshape(*rows, groups, basis.shape[1]).mT.contiguous(),
        entropy=entropy.reshape(*rows, tokens),
        peak=peak.reshape(*rows, tokens),
        energy=role_mass.square().sum(-1).reshape(*rows, groups),
    )


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    mask: Tensor | None,
    *,
    into: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    """Fills output, role mass `[map, role, query]`, entropy and peak, some maps at a time.

    Float32, batch rows and heads in one axis; `key` carries the scale and the change of base.
    """
    output, role_mass, entropy, peak = into
    maps, tokens, _ = query.shape
    step = max(1, MAP_ENTRIES_PER_CHUNK // (key.shape[1] * tokens))
    for start in range(0, maps, step):
        chunk = slice(start, start + step)
        scores = torch.bmm(key[chunk], query[chunk].mT)
        attention = _softmax_over_keys(
            scores, None if mask is None else mask[chunk], entropy[chunk], peak[chunk]
        )
        torch.bmm(roles[chunk], attention, out=role_mass[chunk])
        torch.bmm(attention.mT, value[chunk], out=output[chunk])


def _softmax_over_keys(
    scores: Tensor, mask: Tensor | None, entropy: Tensor, peak: Tensor
) -> Tensor:
    """The map `[map, key, query]` of base-2 scores, which it overwrites.

    Fills `entropy` and `peak` `[map, query]`. `mask` `[map, key, 1]` is True for attended keys.
    """
    if mask is not None:
        scores.masked_fill_(~mask, EXCLUDED_SCORE)
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


def _per_head(tensor: Tensor, heads: int) -> Tensor:
    """`[batch, ...]` repeated for every head, as `[batch * head, ...]`."""
    return tensor.repeat_interleave(heads, dim=0)
