"""Which tiles a kernel uses: a committed table, so that a result never depends on a search.

Tile sizes decide in which order numbers are added. They are therefore looked up by architecture,
dtype, channels and keys alone, never by batch size or by timing at run time: the same call gives
the same bits in any batch, and on any chip of the architecture.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations
from math import inf
from typing import Any, Final, Literal, get_args

import torch

Kernel = Literal["fused", "long"]

FALLBACKS: Final = {
    "sm_86": "sm_80",
    "sm_89": "sm_80",
    "sm_100": "sm_90",
    "sm_103": "sm_90",
    "sm_120": "sm_80",
    "gfx950": "gfx942",
}
"""Architectures without rows of their own, and those whose rows serve them.

The rows of sm_80 stay within 99 KiB of shared memory, which is all its smaller relatives have.
"""

DTYPES: Final = {torch.float16: "half", torch.bfloat16: "half", torch.float32: "float32"}
"""Dtypes of the query, and the rows that serve them."""

MAX_CHANNELS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One row of the table: what it serves and how."""

    architecture: str
    """`sm_90` and the like, or AMD's `gfx942`."""
    dtype: str
    """`half` or `float32`."""
    channels: int
    """Serves heads up to this width."""
    keys: float = inf
    """Serves texts up to this length."""
    kernel: Kernel
    block_queries: int
    """Image tokens in a tile."""
    block_keys: int
    """Keys in a tile; the fused kernel holds all of them, so its rows serve no more than this."""
    warps: int
    stages: int
    """Tiles being loaded or worked on at once."""
    source: str
    """How the row was found."""

    def __post_init__(self) -> None:
        for name in ("block_queries", "block_keys", "warps"):
            size = getattr(self, name)
            if size < 1 or size & (size - 1):
                raise ValueError(f"{name} = {size} is not a power of two in {self}")
        if min(self.block_queries, self.block_keys) < 16:
            raise ValueError(f"a tensor core needs tiles of at least 16 in {self}")
        if self.kernel not in get_args(Kernel) or self.dtype not in DTYPES.values():
            raise ValueError(f"unknown kernel or dtype in {self}")
        if self.kernel == "fused" and self.keys > self.block_keys:
            raise ValueError(f"the fused kernel holds all keys in one tile, not so in {self}")


def choose(
    architecture: str, dtype: torch.dtype, *, channels: int, keys: int, kernel: Kernel | None = None
) -> Configuration:
    """The row that serves a call, of one kernel if `kernel` is given.

    Raises:
        ValueError: no row serves it.
    """
    known = FALLBACKS.get(architecture, architecture)
    for row in table():
        if (
            (row.architecture, row.dtype) == (known, DTYPES.get(dtype))
            and channels <= row.channels
            and keys <= row.keys
            and kernel in (None, row.kernel)
        ):
            return row
    raise ValueError(
        f"no Triton configuration for {architecture}, {dtype}, {channels} channels, {keys} keys"
    )


def serves(architecture: str) -> bool:
    """Whether the table has rows for an architecture."""
    known = FALLBACKS.get(architecture, architecture)
    return any(row.architecture == known for row in table())


@cache
def table() -> tuple[Configuration, ...]:
    """All rows, in the order in which they are tried."""
    text = files(__package__).joinpath("configurations.toml").read_text(encoding="utf-8")
    return parse_table(tomllib.loads(text))


def parse_table(
    document: dict[str, dict[str, list[dict[str, Any]]]],
) -> tuple[Configuration, ...]:
    """The rows of a parsed `configurations.toml`.

    Raises:
        ValueError: a row is unusable, or never reached because an earlier one serves more.
    """
    rows = tuple(
        Configuration(**dict[str, Any](row, architecture=architecture, dtype=dtype))
        for architecture, dtypes in document.items()
        for dtype, entries in dtypes.items()
        for row in entries
    )
    for before, after in combinations(rows, 2):
        if (before.architecture, before.dtype) == (after.architecture, after.dtype) and (
            after.channels <= before.channels and after.keys <= before.keys
        ):
            raise ValueError(f"{after} is never reached, {before} comes first")
    return rows
