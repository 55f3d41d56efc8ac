"""The statistics alone, behind an attention that gives its log-sum-exp.

FlashAttention, cuDNN and FlexAttention return the log-sum-exp of every row. With it the map is
known entry by entry, `A = exp(score - lse)`, and no softmax has to be taken again.
"""

import triton
import triton.language as tl

from attnsearch_kernels.triton.tiles import (
    EXCLUDED_SCORE,
    LN_2,
    load_head,
    load_roles,
    sketch_of_rows,
    store_sketch,
    tile_scores,
)


@triton.jit
def _contract(
    role_mass,
    surprise,
    peak,
    query_main,
    query_rest,
    query,
    rows,
    valid,
    query_stride,
    key,
    roles,
    key_mask,
    lse,
    tiles,
    first_key,
    gap_at,
    gap,
    keys,
    groups,
    scale,
    key_stride,
    WITH_ROLES: tl.constexpr,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    G: tl.constexpr,
    BLOCK_M: tl.constexpr,
    STAGES: tl.constexpr,
    STREAM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Takes the keys `begin` to `end` into the sums of a tile of queries."""
    for tile in tl.range(0, tiles, num_stages=STAGES):
        start = first_key + tile * BLOCK_M
        start += tl.where(start >= gap_at, gap, 0)
        keys_at = start + tl.arange(0, BLOCK_M)
        scores = tile_scores(
            query_main,
            query_rest,
            query,
            rows,
            valid,
            query_stride,
            key,
            keys_at,
            keys,
            key_stride,
            key_mask,
            scale,
            D,
            MAIN,
            REST,
            STREAM,
            PRECISION,
        )
        scores -= lse[:, None]
        attention = tl.exp2(scores)
        surprise -= tl.sum(attention * scores, 1)
        peak = tl.maximum(peak, tl.max(attention, 1))
        if WITH_ROLES:
            weights = load_roles(roles, keys_at, keys_at < keys, groups, G, OPERAND)
            role_mass = tl.dot(
                attention.to(OPERAND), weights, acc=role_mass, input_precision=PRECISION
            )
    return role_mass, surprise, peak


@triton.jit
def given_lse_kernel(
    query,
    key,
    roles,
    basis,
    key_mask,
    log_sum,
    extents,
    sketch,
    energy,
    entropy,
    peak,
    scale,
    heads,
    tokens,
    keys,
    columns,
    groups,
    splits,
    query_batch,
    query_head,
    query_row,
    key_batch,
    key_head,
    key_row,
    ALIGN: tl.constexpr,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    F: tl.constexpr,
    G: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    STAGES: tl.constexpr,
    STREAM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Statistics of `BLOCK_N` image tokens of one map; arguments as in the long kernel.

    `log_sum` is `[B, H, N]` float32, in nats.
    """
    program = tl.program_id(0)
    row = (program // splits).to(tl.int64)
    batch, head = row // heads, row % heads

    query += (batch * query_batch + head * query_head) * ALIGN
    key += (batch * key_batch + head * key_head) * ALIGN
    roles += batch * keys * groups
    if key_mask is not None:
        key_mask += batch * keys
    attended_end = tl.load(extents + batch * 3)
    role_begin = tl.load(extents + batch * 3 + 1) // BLOCK_M * BLOCK_M
    role_end = tl.cdiv(tl.load(extents + batch * 3 + 2), BLOCK_M) * BLOCK_M

    rows = (program % splits) * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = rows < tokens
    query_main, query_rest = load_head(query, rows, valid, query_row * ALIGN, D, MAIN, REST)
    lse = tl.load(log_sum + row * tokens + rows, mask=valid, other=0.0) / LN_2
    # Infinite for rows without a key, whose share of everything this makes zero.
    lse = tl.where(tl.abs(lse) < float("inf"), lse, -EXCLUDED_SCORE)

    role_mass = tl.zeros([BLOCK_N, G], tl.float32)
    surprise = tl.zeros([BLOCK_N], tl.float32)
    largest = tl.zeros([BLOCK_N], tl.float32)
    gap = role_end - role_begin
    for part in tl.static_range(2):
        # First the keys without a role, skipping those with one, then those.
        tiles = gap // BLOCK_M
        first_key = role_begin
        gap_at = role_end
        if part == 0:
            tiles = tl.cdiv(attended_end, BLOCK_M) - tiles
            first_key = 0
            gap_at = role_begin
        role_mass, surprise, largest = _contract(
            role_mass,
            surprise,
            largest,
            query_main,
            query_rest,
            query,
            rows,
            valid,
            query_row * ALIGN,
            key,
            roles,
            key_mask,
            lse,
            tiles,
            first_key,
            gap_at,
            gap,
            keys,
            groups,
            scale,
            key_row * ALIGN,
            part == 1,
            D,
            MAIN,
            REST,
            G,
            BLOCK_M,
            STAGES,
            STREAM,
            OPERAND,
            PRECISION,
        )

    tl.store(entropy + row * tokens + rows, surprise * LN_2, mask=valid)
    tl.store(peak + row * tokens + rows, largest, mask=valid)
    role_mass = tl.where(valid[:, None], role_mass, 0.0)
    sketch_sum = sketch_of_rows(
        tl.zeros([F, G], tl.float32),
        role_mass,
        basis,
        rows,
        valid,
        columns,
        F,
        PRECISION,
    )
    partial = program.to(tl.int64)
    store_sketch(
        sketch + partial * columns * groups,
        energy + partial * groups,
        sketch_sum,
        tl.sum(role_mass * role_mass, 0),
        columns,
        groups,
        F,
        G,
    )
