"""What a kernel takes of a chip, read from its machine code; no GPU is needed.

Triton compiles for any target with the assembler it carries. This module lets a launch believe
that such a target is present, so that what is examined is exactly what would be launched,
specialised on the same alignments, and then reads the binary.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import triton
from triton.backends.compiler import GPUTarget

from attnsearch_kernels.triton.launch import Launch
from attnsearch_kernels.triton.operators import interpreting

TARGETS: Final = ("sm_80", "sm_90", "gfx942")
"""The architectures that the table of tiles has rows for."""

SHARED_MEMORY: Final = {
    "sm_80": 99 * 1024,
    "sm_90": 227 * 1024,
    "gfx942": 64 * 1024,
}
"""Bytes one program may have, from the vendors' tables. Of the 8 family what its least has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one compiled kernel takes."""

    registers: int
    """Per thread; on AMD vector and accumulation registers together."""
    spilled: int
    """Bytes of registers per thread that had to go to memory."""
    shared: int
    """Bytes of shared memory per program."""
    tensor_core: dict[str, int]
    """How many matrix instructions of each kind the code holds: HGMMA, HMMA or MFMA."""
    instructions: int


class _Pretended:
    """The part of a Triton driver that compiling asks for, for a chip that is not there."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_device(self) -> GPUTarget:
        # Triton keeps what it compiled by device.
        return self._target

    def get_current_stream(self, device: GPUTarget) -> GPUTarget:
        return device

    def get_current_target(self) -> GPUTarget:
        return self._target


def compile_ahead(launch: Launch, architecture: str) -> Resources:
    """Compile a launch for an architecture and read what it takes.

    The tensors of the launch may be on `meta`. Replaces Triton's driver for the rest of the
    process, so nothing can be launched afterwards.

    Raises:
        RuntimeError: the process interprets kernels (`TRITON_INTERPRET=1`).
    """
    if interpreting():
        raise RuntimeError("kernels are interpreted in this process; unset TRITON_INTERPRET")
    target = _target(architecture)
    triton.runtime.driver.set_active(_Pretended(target))
    compiled = launch.kernel.warmup(*launch.arguments, grid=launch.grid, **launch.options)
    if target.backend == "cuda":
        return _read_cubin(compiled)
    return _read_amdgcn(compiled)


def _target(architecture: str) -> GPUTarget:
    if architecture.startswith("sm_"):
        return GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    return GPUTarget("hip", architecture, 64)


def _read_cubin(compiled: Any) -> Resources:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = _cuobjdump("-res-usage", path)
        code = _cuobjdump("-sass", path)
    opcodes = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", code, re.M)
    return Resources(
        registers=_number(r"REG:(\d+)", usage),
        spilled=_number(r"STACK:(\d+)", usage),
        shared=compiled.metadata.shared,
        tensor_core=_count(opcodes, "HGMMA", "HMMA"),
        instructions=len(opcodes),
    )


def _read_amdgcn(compiled: Any) -> Resources:
    code = compiled.asm["amdgcn"]
    opcodes = re.findall(r"^\s+([vsdbg][a-z]*_[a-z0-9_]+)", code, re.M)
    matrix = [code.partition("_f32")[0].replace("v_", "").upper() for code in opcodes]
    return Resources(
        registers=_number(r"\.vgpr_count:\s+(\d+)", code),
        spilled=4 * _number(r"\.vgpr_spill_count:\s+(\d+)", code),
        shared=compiled.metadata.shared,
        tensor_core=_count(matrix, "MFMA"),
        instructions=len(opcodes),
    )


def _cuobjdump(option: str, path: Path) -> str:
    tool = triton.knobs.nvidia.cuobjdump.path
    return subprocess.run([tool, option, path], capture_output=True, text=True, check=True).stdout


def _number(pattern: str, text: str) -> int:
    return max(int(found) for found in re.findall(pattern, text))


def _count(opcodes: list[str], *kinds: str) -> dict[str, int]:
    counts = {kind: opcodes.count(kind) for kind in kinds}
    return {kind: count for kind, count in counts.items() if count}
