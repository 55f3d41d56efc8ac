"""What the kernels share: tiles of heads whose width is no power of two, softmax, the sketch.

A head of D channels is two tiles, `MAIN` and `REST` channels wide (72 = 64 + 8 in 16), because a
tile's width must be a power of two and rounding 72 up to 128 would cost as much again. `REST` is
0 where one tile is enough; the second tile is then a copy of the first that nothing reads.

Every matrix product accumulates in float32. `PRECISION` is how products of float32 operands are
taken: three tensor-core products of their halves (`tf32x3`), never the scalar units.
"""

import triton
import triton.language as tl

EXCLUDED_SCORE: tl.constexpr = tl.constexpr(-1e30)
"""Added to the score of a key that may not be attended. Finite: entropy multiplies it by zero."""

LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def load_rows(
    base,
    rows,
    valid,
    stride,
    D: tl.constexpr,
    FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Channels `FIRST` to `FIRST + WIDTH` of some rows; zeros past D and where not `valid`."""
    channels = FIRST + tl.arange(0, WIDTH)
    inside = valid[:, None]
    if FIRST + WIDTH > D:
        inside = inside & (channels < D)[None, :]
    return tl.load(base + rows[:, None] * stride + channels[None, :], mask=inside, other=0.0)


@triton.jit
def load_head(
    base,
    rows,
    valid,
    stride,
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
):
    """Rows of a head as its two tiles."""
    main = load_rows(base, rows, valid, stride, D, 0, MAIN)
    rest = main
    if REST > 0:
        rest = load_rows(base, rows, valid, stride, D, MAIN, REST)
    return main, rest


@triton.jit
def store_rows(
    base, rows, valid, stride, tile, D: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr
):
    """The counterpart of `load_rows`."""
    channels = FIRST + tl.arange(0, WIDTH)
    inside = valid[:, None]
    if FIRST + WIDTH > D:
        inside = inside & (channels < D)[None, :]
    at = base + rows[:, None] * stride + channels[None, :]
    tl.store(at, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_roles(base, keys_at, inside, groups, G: tl.constexpr, OPERAND: tl.constexpr):
    """Weights `[key, role]` of some keys, in the dtype of the product with the map."""
    roles_at = tl.arange(0, G)
    weights = tl.load(
        base + keys_at[:, None] * groups + roles_at[None, :],
        mask=inside[:, None] & (roles_at < groups)[None, :],
        other=0.0,
    )
    return weights.to(OPERAND)


@triton.jit
def score_bias(key_mask, keys_at, keys):
    """0 for keys that may be attended, `EXCLUDED_SCORE` for others; and which may."""
    attended = keys_at < keys
    if key_mask is not None:
        attended = attended & (tl.load(key_mask + keys_at, mask=attended, other=0) != 0)
    return tl.where(attended, 0.0, EXCLUDED_SCORE), attended


@triton.jit
def base2_scores(
    query_main,
    query_rest,
    key_main,
    key_rest,
    bias,
    scale,
    REST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Scores `[query, key]` in base 2 of keys `[channel, key]`; `scale` carries the new base."""
    scores = tl.dot(query_main, key_main, input_precision=PRECISION)
    if REST > 0:
        scores = tl.dot(query_rest, key_rest, acc=scores, input_precision=PRECISION)
    return scores * scale + bias[None, :]


@triton.jit
def streamed_scores(
    query,
    rows,
    valid,
    query_stride,
    key,
    keys_at,
    in_text,
    key_stride,
    bias,
    scale,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`base2_scores` without a query in registers: both operands arrive 32 channels at a time.

    For wide float32 heads. A product in three parts needs every operand twice, and a query that
    stays would fill all registers.
    """
    scores = tl.zeros([rows.shape[0], keys_at.shape[0]], tl.float32)
    for first in tl.range(0, D, 32):
        channels = first + tl.arange(0, 32)
        inside = (channels < D)[None, :]
        query_part = tl.load(
            query + rows[:, None] * query_stride + channels[None, :],
            mask=valid[:, None] & inside,
            other=0.0,
        )
        key_part = tl.load(
            key + keys_at[:, None] * key_stride + channels[None, :],
            mask=in_text[:, None] & inside,
            other=0.0,
        )
        scores = tl.dot(query_part, tl.trans(key_part), acc=scores, input_precision=PRECISION)
    return scores * scale + bias[None, :]


@triton.jit
def tile_scores(
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
    D: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    STREAM: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Base-2 scores of a tile of keys, from queries in registers or, if `STREAM`, from memory."""
    in_text = keys_at < keys
    bias, _ = score_bias(key_mask, keys_at, keys)
    if STREAM:
        scores = streamed_scores(
            query,
            rows,
            valid,
            query_stride,
            key,
            keys_at,
            in_text,
            key_stride,
            bias,
            scale,
            D,
            PRECISION,
        )
    else:
        key_main, key_rest = load_head(key, keys_at, in_text, key_stride, D, MAIN, REST)
        key_main, key_rest = tl.trans(key_main), tl.trans(key_rest)
        scores = base2_scores(
            query_main, query_rest, key_main, key_rest, bias, scale, REST, PRECISION
        )
    return scores


@triton.jit
def sketch_of_rows(
    sketch,
    role_mass,
    basis,
    rows,
    valid,
    columns,
    F: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`sketch + basis[rows].T @ role_mass`: the second and last contraction of the map."""
    columns_at = tl.arange(0, F)
    tile = tl.load(
        basis + rows[:, None] * columns + columns_at[None, :],
        mask=valid[:, None] & (columns_at < columns)[None, :],
        other=0.0,
    )
    # The other order of transpose and cast takes more shared memory, and on sm_80 spills.
    transposed = tl.trans(tile)
    return tl.dot(transposed, role_mass.to(tile.dtype), acc=sketch, input_precision=PRECISION)


@triton.jit
def store_sketch(
    sketch_to, energy_to, sketch, energy, columns, groups, F: tl.constexpr, G: tl.constexpr
):
    """Writes one `[F, G]` sketch and one `[G]` energy, without their padding."""
    columns_at, roles_at = tl.arange(0, F), tl.arange(0, G)
    tl.store(
        sketch_to + columns_at[:, None] * groups + roles_at[None, :],
        sketch,
        mask=(columns_at < columns)[:, None] & (roles_at < groups)[None, :],
    )
    tl.store(energy_to + roles_at, energy, mask=roles_at < groups)


@triton.jit
def sum_splits_kernel(
    partial_sketch,
    partial_energy,
    sketch,
    energy,
    splits,
    coefficients,
    groups,
    BLOCK: tl.constexpr,
):
    """Adds the partial sketches and energies of a map, always in the order of its rows.

    Partial sums are `[map, split, ...]`. One program a map; `coefficients` is F G.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    for first in range(0, coefficients, BLOCK):
        inside = first + at < coefficients
        total = tl.zeros([BLOCK], tl.float32)
        for split in range(0, splits):
            start = (row * splits + split) * coefficients + first
            total += tl.load(partial_sketch + start + at, mask=inside, other=0.0)
        tl.store(sketch + row * coefficients + first + at, total, mask=inside)
    inside = at < groups
    total = tl.zeros([BLOCK], tl.float32)
    for split in range(0, splits):
        start = (row * splits + split) * groups
        total += tl.load(partial_energy + start + at, mask=inside, other=0.0)
    tl.store(energy + row * groups + at, total, mask=inside)
