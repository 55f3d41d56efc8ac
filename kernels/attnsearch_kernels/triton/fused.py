"""The fused kernel: all text tokens in one tile, so a row's softmax is final as soon as it exists.

One program owns up to `ROWS` image tokens of one map. Key, value and roles are loaded once and
stay; tiles of the query stream past. Each tile costs one pass: scores, softmax, output, entropy,
peak, then `role_mass = A roles` and with it the energy and the sketch, whose `[F, G]` sum stays in
registers until the program ends. Nothing of the map is written.
"""

import triton
import triton.language as tl

from attnsearch_kernels.triton.tiles import (
    LN_2,
    base2_scores,
    load_head,
    load_roles,
    score_bias,
    sketch_of_rows,
    store_rows,
    store_sketch,
)


@triton.jit
def fused_kernel(
    query,
    key,
    value,
    roles,
    basis,
    key_mask,
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
    ROWS: tl.constexpr,
    STAGES: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attention and sketch of `ROWS` image tokens of one map; program = map * splits + split.

    Strides of query, key, value and output come in units of `ALIGN` elements: so the compiler
    knows their alignment. Roles, basis, mask and statistics are contiguous. `sketch` and `energy`
    are `[map, split, ...]`.
    """
    program = tl.program_id(0)
    row = (program // splits).to(tl.int64)
    batch, head = row // heads, row % heads
    first = (program % splits) * ROWS

    query += (batch * query_batch + head * query_head) * ALIGN
    key += (batch * key_batch + head * key_head) * ALIGN
    value += (batch * value_batch + head * value_head) * ALIGN
    output += (batch * output_batch + head * output_head) * ALIGN
    entropy += row * tokens
    peak += row * tokens
    if key_mask is not None:
        key_mask += batch * keys

    keys_at = tl.arange(0, BLOCK_M)
    in_text = keys_at < keys
    bias, attended = score_bias(key_mask, keys_at, keys)
    has_key = tl.max(attended.to(tl.float32), 0)
    key_main, key_rest = load_head(key, keys_at, in_text, key_row * ALIGN, D, MAIN, REST)
    # Transposed once: inside the loop the keys would be copied to shared memory for every tile.
    key_main, key_rest = tl.trans(key_main), tl.trans(key_rest)
    value_main, value_rest = load_head(value, keys_at, in_text, value_row * ALIGN, D, MAIN, REST)
    weights = load_roles(roles + batch * keys * groups, keys_at, in_text, groups, G, OPERAND)

    sketch_sum = tl.zeros([F, G], tl.float32)
    squares = tl.zeros([BLOCK_N, G], tl.float32)
    end = tl.minimum(first + ROWS, tokens)
    for start in tl.range(first, end, BLOCK_N, num_stages=STAGES):
        rows = start + tl.arange(0, BLOCK_N)
        valid = rows < end
        query_main, query_rest = load_head(query, rows, valid, query_row * ALIGN, D, MAIN, REST)
        scores = base2_scores(
            query_main, query_rest, key_main, key_rest, bias, scale, REST, PRECISION
        )
        scores -= tl.max(scores, 1)[:, None]
        attention = tl.exp2(scores)
        total = tl.sum(attention, 1)
        # Dividing by the total waits until after the products, where there is less to divide.
        # Zero for rows past the end, which must not enter a sum, and for texts without a key.
        share = tl.where(valid, has_key / total, 0.0)
        surprise = tl.log2(total) * has_key - tl.sum(attention * scores, 1) * share
        tl.store(entropy + rows, surprise * LN_2, mask=valid)
        tl.store(peak + rows, share, mask=valid)

        role_mass = tl.dot(attention.to(OPERAND), weights, input_precision=PRECISION)
        role_mass *= share[:, None]
        squares += role_mass * role_mass
        sketch_sum = sketch_of_rows(
            sketch_sum, role_mass, basis, rows, valid, columns, F, PRECISION
        )
        operand = attention.to(value_main.dtype)
        out = tl.dot(operand, value_main, input_precision=PRECISION) * share[:, None]
        store_rows(output, rows, valid, output_row * ALIGN, out, D, 0, MAIN)
        if REST > 0:
            out = tl.dot(operand, value_rest, input_precision=PRECISION) * share[:, None]
            store_rows(output, rows, valid, output_row * ALIGN, out, D, MAIN, REST)

    partial = program.to(tl.int64)
    store_sketch(
        sketch + partial * columns * groups,
        energy + partial * groups,
        sketch_sum,
        tl.sum(squares, 0),
        columns,
        groups,
        F,
        G,
    )
