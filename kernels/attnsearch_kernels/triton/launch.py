"""From tensors to kernel launches: sizes, strides, tiles, and the order of the launches."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from attnsearch_kernels.contract import (
    MapStatistics,
    SketchedAttention,
    empty_statistics,
    row_major,
)
from attnsearch_kernels.triton.configurations import Configuration, Kernel, choose
from attnsearch_kernels.triton.fused import fused_kernel
from attnsearch_kernels.triton.given_lse import given_lse_kernel
from attnsearch_kernels.triton.long import extents_kernel, long_kernel
from attnsearch_kernels.triton.tiles import sum_splits_kernel

ROWS_PER_PROGRAM: Final = 512
"""Image tokens one program of the fused kernel owns.

Fixed, so that partial sums of the sketch are the same whatever the batch and the chip.
"""


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch: what `kernel[grid](*arguments, **options)` would start."""

    kernel: Any
    grid: tuple[int]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def start(self) -> None:
        """Start it on the current device."""
        self.kernel[self.grid](*self.arguments, **self.options)


def plan_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    roles: Tensor,
    basis: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None,
    architecture: str,
    kernel: Kernel | None = None,
    configuration: Configuration | None = None,
) -> tuple[SketchedAttention, list[Launch]]:
    """The results, still empty, and the launches that fill them.

    Works on tensors of any device, `meta` included: compiling ahead of time needs nothing else.
    """
    batch, heads, tokens, channels = query.shape
    keys = key.shape[2]
    row = configuration or choose(
        architecture, query.dtype, channels=channels, keys=keys, kernel=kernel
    )
    statistics = empty_statistics(query, roles, basis)
    query, key, value = (row_major(x) for x in (query, key, value))
    output = torch.empty_like(query)
    result = SketchedAttention(output, *statistics)
    if batch * heads * tokens * keys == 0:
        for each in result:
            each.zero_()
        return result, []
    rows = ROWS_PER_PROGRAM if row.kernel == "fused" else row.block_queries
    sums = _Sums(statistics, splits=triton.cdiv(tokens, rows))
    tensors = (query, key, value, output)
    align = _alignment(tensors)
    roles, mask = roles.contiguous(), _readable_mask(key_mask)
    inputs = (query, key, value, roles, _rounded(basis, query), mask)
    arguments = (
        output,
        sums.sketch,
        sums.energy,
        statistics.entropy,
        statistics.peak,
        scale / log(2),
        heads,
        tokens,
        keys,
        basis.shape[1],
        roles.shape[2],
        sums.splits,
        *(stride // align for tensor in tensors for stride in tensor.stride()[:3]),
    )
    options = _options(row, query, roles, basis, align)
    grid = (batch * heads * sums.splits,)
    if row.kernel == "fused":
        options["ROWS"] = rows
        launches = [Launch(fused_kernel, grid, (*inputs, *arguments), options)]
    else:
        options |= _streaming(query)
        extents, measure = _measured(roles, mask)
        launches = [measure, Launch(long_kernel, grid, (*inputs, extents, *arguments), options)]
    return result, launches + sums.launches()


def plan_given_lse(
    query: Tensor,
    key: Tensor,
    roles: Tensor,
    basis: Tensor,
    lse: Tensor,
    *,
    scale: float,
    key_mask: Tensor | None,
    architecture: str,
    configuration: Configuration | None = None,
) -> tuple[MapStatistics, list[Launch]]:
    """The counterpart of `plan_attention` for a map whose log-sum-exp is known."""
    batch, heads, tokens, channels = query.shape
    keys = key.shape[2]
    row = configuration or choose(
        architecture, query.dtype, channels=channels, keys=keys, kernel="long"
    )
    statistics = empty_statistics(query, roles, basis)
    if batch * heads * tokens * keys == 0:
        for each in statistics:
            each.zero_()
        return statistics, []
    query, key = row_major(query), row_major(key)
    sums = _Sums(statistics, splits=triton.cdiv(tokens, row.block_queries))
    align = _alignment((query, key))
    roles, mask = roles.contiguous(), _readable_mask(key_mask)
    extents, measure = _measured(roles, mask)
    arguments = (
        query,
        key,
        roles,
        _rounded(basis, query),
        mask,
        lse.float().contiguous(),
        extents,
        sums.sketch,
        sums.energy,
        statistics.entropy,
        statistics.peak,
        scale / log(2),
        heads,
        tokens,
        keys,
        basis.shape[1],
        roles.shape[2],
        sums.splits,
        *(stride // align for tensor in (query, key) for stride in tensor.stride()[:3]),
    )
    options = _options(row, query, roles, basis, align) | _streaming(query)
    grid = (batch * heads * sums.splits,)
    launches = [measure, Launch(given_lse_kernel, grid, arguments, options)]
    return statistics, launches + sums.launches()


def _readable_mask(key_mask: Tensor | None) -> Tensor | None:
    return None if key_mask is None else key_mask.contiguous().view(torch.uint8)


def _measured(roles: Tensor, mask: Tensor | None) -> tuple[Tensor, Launch]:
    """The extents of the texts, still empty, and the launch that fills them."""
    batch, keys, groups = roles.shape
    extents = torch.empty((batch, 3), dtype=torch.int32, device=roles.device)
    options = {"G": _padded(groups), "BLOCK": 128}
    return extents, Launch(extents_kernel, (batch,), (roles, mask, extents, keys, groups), options)


class _Sums:
    """Where programs leave their share of sketch and energy, and how the shares are added."""

    def __init__(self, statistics: MapStatistics, *, splits: int) -> None:
        self.splits = splits
        self._sketch, self._energy = statistics.sketch, statistics.energy
        batch, heads, columns, groups = self._sketch.shape
        self.sketch, self.energy = self._sketch, self._energy
        if splits > 1:
            maps = batch * heads
            self.sketch, self.energy = (
                torch.empty((maps, splits, *shape), dtype=torch.float32, device=self._sketch.device)
                for shape in ((columns, groups), (groups,))
            )

    def launches(self) -> list[Launch]:
        """Nothing where every map had one program."""
        if self.splits == 1:
            return []
        maps, splits, columns, groups = self.sketch.shape
        arguments = (
            self.sketch,
            self.energy,
            self._sketch,
            self._energy,
            splits,
            columns * groups,
            groups,
        )
        return [Launch(sum_splits_kernel, (maps,), arguments, {"BLOCK": 512})]


def _options(
    row: Configuration, query: Tensor, roles: Tensor, basis: Tensor, align: int
) -> dict[str, Any]:
    """Compile-time constants of a call."""
    channels = query.shape[3]
    main, rest = split_channels(channels)
    half = query.dtype != torch.float32
    return {
        "ALIGN": align,
        "D": channels,
        "MAIN": main,
        "REST": rest,
        "F": _padded(basis.shape[1]),
        "G": _padded(roles.shape[2]),
        "BLOCK_N": row.block_queries,
        "BLOCK_M": row.block_keys,
        "STAGES": row.stages,
        # Weights of a map are at most one: float16 keeps three bits more of them than bfloat16.
        "OPERAND": tl.float16 if half else tl.float32,
        "PRECISION": _precision(row.architecture, query.dtype),
        "num_warps": row.warps,
        "num_stages": row.stages,
        # Triton 3.10 no longer fuses multiply and add by default.
        "enable_fp_fusion": True,
    }


def _rounded(basis: Tensor, query: Tensor) -> Tensor:
    """The basis as an operand: beside half precision float16, since tf32 is cut, not rounded."""
    return basis.to(torch.float32 if query.dtype == torch.float32 else torch.float16).contiguous()


def _precision(architecture: str, dtype: torch.dtype) -> str:
    """How float32 operands are multiplied: on tensor cores always."""
    if architecture.startswith("gfx"):
        return "ieee"  # AMD's matrix units take float32 as it is.
    return "tf32x3" if dtype == torch.float32 else "tf32"


def _streaming(query: Tensor) -> dict[str, bool]:
    """Wide float32 queries, and the halves that their products take, would fill all registers."""
    return {"STREAM": query.dtype == torch.float32 and query.shape[3] > 32}


def split_channels(channels: int) -> tuple[int, int]:
    """Widths of the two tiles of a head: powers of two from 16 on, together as few as possible.

    The second is 0 where one tile is no wider than two.
    """
    whole = _padded(channels)
    main = whole // 2
    rest = _padded(channels - main)
    return (whole, 0) if main < 16 or main + rest >= whole else (main, rest)


def _padded(size: int) -> int:
    """The next power of two that a tensor core takes."""
    return max(16, triton.next_power_of_2(size))


def _alignment(tensors: tuple[Tensor, ...]) -> int:
    """8 where all rows start at a multiple of eight elements (16 bytes of half precision), or 1."""
    strides = [stride for tensor in tensors for stride in tensor.stride()[:3]]
    return 8 if all(stride % 8 == 0 for stride in strides) else 1
