"""The long kernel: any number of keys, in tiles, with a softmax that is corrected as it goes.

Because roles are contracted first, `A roles` is one more value matrix: it is summed and rescaled
along the keys exactly as the output is, and the sketch needs no second look at the scores. Keys
without a role (the image keys of joint attention) take no part in that product, and the keys after
the last one that may be attended are never read.
"""

import triton
import triton.language as tl

from attnsearch_kernels.triton.tiles import (
    EXCLUDED_SCORE,
    LN_2,
    load_head,
    load_roles,
    score_bias,
    sketch_of_rows,
    store_rows,
    store_sketch,
    tile_scores,
)


@triton.jit
def extents_kernel(roles, key_mask, extents, keys, groups, G: tl.constexpr, BLOCK: tl.constexpr):
    """Per batch row, the end of the attended keys and the ends of those with a role, `[B, 3]`.

    Both ranges are half open; an empty one is 0, 0.
    """
    batch = tl.program_id(0).to(tl.int64)
    roles += batch * keys * groups
    if key_mask is not None:
        key_mask += batch * keys
    attended_end = 0
    role_begin = keys
    role_end = 0
    for start in range(0, keys, BLOCK):
        keys_at = start + tl.arange(0, BLOCK)
        attended = score_bias(key_mask, keys_at, keys)[1]
        weights = load_roles(roles, keys_at, attended, groups, G, tl.float32)
        has_role = tl.max((weights != 0.0).to(tl.int32), 1) > 0
        attended_end = tl.maximum(attended_end, tl.max(tl.where(attended, keys_at + 1, 0), 0))
        role_begin = tl.minimum(role_begin, tl.min(tl.where(has_role, keys_at, keys), 0))
        role_end = tl.maximum(role_end, tl.max(tl.where(has_role, keys_at + 1, 0), 0))
    tl.store(extents + batch * 3, attended_end)
    tl.store(extents + batch * 3 + 1, tl.minimum(role_begin, role_end))
    tl.store(extents + batch * 3 + 2, role_end)


@triton.jit
def _attend(
    out_main,
    out_rest,
    role_mass,
    largest,
    total,
    expected,
    query_main,
    query_rest,
    query,
    rows,
    valid,
    query_stride,
    key,
    value,
    roles,
    key_mask,
    tiles,
    first_key,
    gap_at,
    gap,
    keys,
    groups,
    scale,
    key_stride,
    value_stride,
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
    """Takes the keys `begin` to `end` into the running sums of a tile of queries.

    `largest` is the largest score so far, `total` the sum of `w = 2 ** (score - largest)`,
    `expected` the sum of `w (score - largest)`.
    """
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
        in_text = keys_at < keys
        value_main, value_rest = load_head(value, keys_at, in_text, value_stride, D, MAIN, REST)
        larger = tl.maximum(largest, tl.max(scores, 1))
        step = largest - larger
        shrink = tl.exp2(step)
        scores -= larger[:, None]
        attention = tl.exp2(scores)
        expected = (expected + total * step) * shrink + tl.sum(attention * scores, 1)
        total = total * shrink + tl.sum(attention, 1)
        largest = larger

        operand = attention.to(value_main.dtype)
        out_main = tl.dot(
            operand, value_main, acc=out_main * shrink[:, None], input_precision=PRECISION
        )
        if REST > 0:
            out_rest = tl.dot(
                operand, value_rest, acc=out_rest * shrink[:, None], input_precision=PRECISION
            )
        role_mass *= shrink[:, None]
        if WITH_ROLES:
            weights = load_roles(roles, keys_at, in_text, groups, G, OPERAND)
            role_mass = tl.dot(
                attention.to(OPERAND), weights, acc=role_mass, input_precision=PRECISION
            )
    return out_main, out_rest, role_mass, largest, total, expected


@triton.jit
def long_kernel(
    query,
    key,
    value,
    roles,
    basis,
    key_mask,
    extents,
    output,
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
    value_batch,
    value_head,
    value_row,
    output_batch,
    output_head,
    output_row,
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
    """Attention and sketch of `BLOCK_N` image tokens of one map; arguments as in the fused kernel.

    Two passes along the keys: first the tiles without a role, on both sides, then those with one.
    """
    program = tl.program_id(0)
    row = (program // splits).to(tl.int64)
    batch, head = row // heads, row % heads

    query += (batch * query_batch + head * query_head) * ALIGN
    key += (batch * key_batch + head * key_head) * ALIGN
    value += (batch * value_batch + head * value_head) * ALIGN
    output += (batch * output_batch + head * output_head) * ALIGN
    roles += batch * keys * groups
    if key_mask is not None:
        key_mask += batch * keys
    attended_end = tl.load(extents + batch * 3)
    role_begin = tl.load(extents + batch * 3 + 1) // BLOCK_M * BLOCK_M
    role_end = tl.cdiv(tl.load(extents + batch * 3 + 2), BLOCK_M) * BLOCK_M

    rows = (program % splits) * BLOCK_N + tl.arange(0, BLOCK_N)
    valid = rows < tokens
    query_main, query_rest = load_head(query, rows, valid, query_row * ALIGN, D, MAIN, REST)

    out_main = tl.zeros([BLOCK_N, MAIN], tl.float32)
    out_rest = tl.zeros([BLOCK_N, REST if REST > 0 else 1], tl.float32)
    role_mass = tl.zeros([BLOCK_N, G], tl.float32)
    largest = tl.full([BLOCK_N], EXCLUDED_SCORE, tl.float32)
    total = tl.zeros([BLOCK_N], tl.float32)
    expected = tl.zeros([BLOCK_N], tl.float32)
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
        out_main, out_rest, role_mass, largest, total, expected = _attend(
            out_main,
            out_rest,
            role_mass,
            largest,
            total,
            expected,
            query_main,
            query_rest,
            query,
            rows,
            valid,
            query_row * ALIGN,
            key,
            value,
            roles,
            key_mask,
            tiles,
            first_key,
            gap_at,
            gap,
            keys,
            groups,
            scale,
            key_row * ALIGN,
            value_row * ALIGN,
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

    has_key = attended_end > 0
    total = tl.where(has_key, total, 1.0)
    share = tl.where(valid & has_key, 1.0 / total, 0.0)
    surprise = tl.log2(total) - expected * share
    tl.store(entropy + row * tokens + rows, surprise * LN_2, mask=valid)
    tl.store(peak + row * tokens + rows, share, mask=valid)
    store_rows(output, rows, valid, output_row * ALIGN, out_main * share[:, None], D, 0, MAIN)
    if REST > 0:
        store_rows(
            output, rows, valid, output_row * ALIGN, out_rest * share[:, None], D, MAIN, REST
        )
    role_mass *= share[:, None]
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
