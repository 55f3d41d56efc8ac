"""What one call must compute and move at least, and how long that takes on a known device.

Pure functions of the shape and of a table of devices; nothing is run. A floor is the time of the
slowest of three things done perfectly at once: moving the bytes, multiplying the matrices, taking
the exponentials. It leaves out launches, padding to tiles and partial sums.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class CallShape:
    """The sizes of one `sketch_attention` call."""

    batch: int
    """B, batch rows."""
    heads: int
    """H."""
    tokens: int
    """N, image tokens (queries)."""
    keys: int
    """M, text tokens."""
    channels: int
    """D, per head."""
    roles: int
    """G."""
    basis: int
    """F, basis columns."""

    def __post_init__(self) -> None:
        for field in fields(self):
            size = getattr(self, field.name)
            if size < 0:
                raise ValueError(f"{field.name} = {size} is negative")

    @property
    def maps(self) -> int:
        """B H, the maps of the call."""
        return self.batch * self.heads


def attention_flops(shape: CallShape) -> int:
    """Operations of the two matrix products of plain attention: `4 B H N M D`.

    A multiply-add counts as two. The softmax (about five operations per map entry) is left out,
    as is customary.
    """
    return 4 * shape.maps * shape.tokens * shape.keys * shape.channels


def sketch_flops(shape: CallShape) -> int:
    """Operations the sketch adds: `2 B H N G (M + F)`, roles first, then the basis.

    Relative to attention `G (M + F) / (2 M D)`. Basis first would be `2 B H M F (N + G)`.
    """
    return 2 * shape.maps * shape.tokens * shape.roles * (shape.keys + shape.basis)


def exponentials(shape: CallShape) -> int:
    """Exponentials of the softmax, `B H N M`. The sketch, the entropy and the peak add none."""
    return shape.maps * shape.tokens * shape.keys


def attention_bytes(shape: CallShape, *, itemsize: int) -> int:
    """Bytes plain attention must move at least: `itemsize B H D (2 N + 2 M) + B M`.

    Query, key, value and output once, and the mask, one byte an entry.

    Args:
        shape: sizes of the call; `roles` and `basis` do not matter.
        itemsize: bytes per element of the query.
    """
    tensors = shape.maps * shape.channels * 2 * (shape.tokens + shape.keys)
    return itemsize * tensors + shape.batch * shape.keys


def bytes_moved(shape: CallShape, *, itemsize: int) -> int:
    """Bytes a call must read and write at least: every input and every result once.

    Those of plain attention, and four bytes for each of the `B M G + N F` entries of roles and
    basis and of the `B H (F G + 2 N + G)` statistics. The basis counts once, as it stays in the
    cache. The map, `B H N M` entries, is not among them.

    Args:
        shape: sizes of the call.
        itemsize: bytes per element of the query.
    """
    constants = shape.batch * shape.keys * shape.roles + shape.tokens * shape.basis
    statistics = shape.maps * (shape.roles * (shape.basis + 1) + 2 * shape.tokens)
    return attention_bytes(shape, itemsize=itemsize) + 4 * (constants + statistics)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a GPU can do in a second, at most."""

    name: str
    bytes_per_second: float
    """Between the chip and its memory."""
    half_flops: float
    """Matrix products of float16 or bfloat16, float32 sums."""
    float32_flops: float
    """Matrix products of float32 as three of tf32 (tf32x3): a third of the tf32 rate."""
    exponentials_per_second: float
    measured: frozenset[str] = frozenset()
    """The rates above that were measured; all others are a data sheet's dense peaks."""

    def __post_init__(self) -> None:
        rates = {field.name for field in fields(self)} - {"name", "measured"}
        for rate in sorted(rates):
            value = getattr(self, rate)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{rate} = {value} of {self.name} is not a rate")
        if not self.measured <= rates:
            raise ValueError(f"measured = {sorted(self.measured)} are not all rates")

    def flops_per_second(self, itemsize: int) -> float:
        """Rate of matrix products on elements of two bytes or four.

        Raises:
            ValueError: elements of another size have no rate here.
        """
        if itemsize not in (2, 4):
            raise ValueError(f"itemsize = {itemsize} is neither 2 (half) nor 4 (float32)")
        return self.half_flops if itemsize == 2 else self.float32_flops


_SPECIAL_PER_CLOCK: Final = 16
"""Exponentials per clock of a streaming multiprocessor (the CUDA programming guide's throughput
table, compute capability 8.0 and 9.0) and of a CDNA 3 compute unit (64 lanes at quarter rate)."""

_MEASURED: Final = frozenset({"bytes_per_second", "half_flops"})

DEVICES: Final[Mapping[str, Device]] = MappingProxyType(
    {
        device.name: device
        for device in (
            # SXM with 80 GB. Data sheet: 2,039 GB/s, 312 and 156 TFLOP/s; 108 SMs at 1.41 GHz.
            Device(
                name="A100",
                bytes_per_second=2.039e12,
                half_flops=312e12,
                float32_flops=156e12 / 3,
                exponentials_per_second=_SPECIAL_PER_CLOCK * 108 * 1.41e9,
            ),
            # SXM. Measured: 3.0 TB/s device-to-device copy, 790 TFLOP/s bfloat16. Data sheet:
            # 3.35 TB/s, 989.4 and 494.7 TFLOP/s; 132 SMs at 1.83 GHz, the clock of those peaks.
            Device(
                name="H100",
                bytes_per_second=3.0e12,
                half_flops=790e12,
                float32_flops=494.7e12 / 3,
                exponentials_per_second=_SPECIAL_PER_CLOCK * 132 * 1.83e9,
                measured=_MEASURED,
            ),
            # SXM. Measured: 4.3 TB/s device-to-device copy, 769 to 798 TFLOP/s bfloat16. Data
            # sheet: 4.8 TB/s, all else as the H100.
            Device(
                name="H200",
                bytes_per_second=4.3e12,
                half_flops=798e12,
                float32_flops=494.7e12 / 3,
                exponentials_per_second=_SPECIAL_PER_CLOCK * 132 * 1.83e9,
                measured=_MEASURED,
            ),
            # Data sheet: 5.3 TB/s, 1,307.4 and 653.7 TFLOP/s; 304 compute units at 2.1 GHz.
            Device(
                name="MI300X",
                bytes_per_second=5.3e12,
                half_flops=1307.4e12,
                float32_flops=653.7e12 / 3,
                exponentials_per_second=_SPECIAL_PER_CLOCK * 304 * 2.1e9,
            ),
        )
    }
)
"""By short name. A measured rate is what ordinary copies and products reach, so a kernel that
reads more than it writes may come out slightly under the floor; a data sheet's is never reached."""

_OTHER_BOARDS: Final = frozenset({"PCIE", "NVL", "MIG", "40GB", "64GB"})
"""Words in the names of slower boards, or of slices, of the chips in the table."""


def find_device(name: str) -> Device | None:
    """The row of `DEVICES` for a name as torch gives it, such as "NVIDIA H100 80GB HBM3".

    None for whatever is not in the table, such as PCIe boards, MIG slices and the GH200.
    """
    words = set(re.split(r"[^A-Z0-9]+", name.upper()))
    if words & _OTHER_BOARDS:
        return None
    return next((device for short, device in DEVICES.items() if short in words), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least time one call takes, in microseconds, by what it would be spent on."""

    memory: float
    matrix: float
    exponential: float

    @property
    def microseconds(self) -> float:
        """The floor: the largest part, the other two hidden behind it."""
        return max(self.memory, self.matrix, self.exponential)

    @property
    def limit(self) -> str:
        """The part that binds: `memory`, `matrix` or `exponential`."""
        return max(("memory", "matrix", "exponential"), key=lambda part: getattr(self, part))


def floor_microseconds(shape: CallShape, device: Device, *, itemsize: int) -> Floor:
    """Floor of attention with its sketch, in one pass that keeps the map on the chip.

    Raises:
        ValueError: `itemsize`, bytes per element of the query, is neither 2 nor 4.
    """
    flops = attention_flops(shape) + sketch_flops(shape)
    return _floor(shape, device, itemsize, flops, bytes_moved(shape, itemsize=itemsize))


def attention_floor_microseconds(shape: CallShape, device: Device, *, itemsize: int) -> Floor:
    """Floor of plain attention, whatever `roles` and `basis` are.

    Raises:
        ValueError: `itemsize`, bytes per element of the query, is neither 2 nor 4.
    """
    moved = attention_bytes(shape, itemsize=itemsize)
    return _floor(shape, device, itemsize, attention_flops(shape), moved)


def _floor(shape: CallShape, device: Device, itemsize: int, flops: int, moved: int) -> Floor:
    return Floor(
        memory=1e6 * moved / device.bytes_per_second,
        matrix=1e6 * flops / device.flops_per_second(itemsize),
        exponential=1e6 * exponentials(shape) / device.exponentials_per_second,
    )
