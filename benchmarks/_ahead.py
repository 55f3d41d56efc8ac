"""What the kernels take of three chips, compiled ahead of time; no GPU is needed.

Every kernel and tile that the calls people make would launch, compiled in another process, which is
stopped if one takes too long.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

import torch
from torch import Tensor

from attnsearch_kernels.triton.launch import Launch, plan_attention, plan_given_lse
from attnsearch_kernels.triton.resources import (
    SHARED_MEMORY,
    TARGETS,
    Resources,
    compile_ahead,
)

SECONDS: Final = 60
"""A kernel that takes longer has tiles that do not fit: sound ones take two."""
MAIN_KERNELS: Final = frozenset({"fused_kernel", "long_kernel", "given_lse_kernel"})

HALF_SHAPES: Final = (
    (20, 16),
    (20, 32),
    (20, 64),
    (77, 40),
    (77, 64),
    (77, 128),
    (120, 72),
    (300, 72),
    (4608, 64),
    (4608, 128),
)
"""Keys and channels of attention in half precision, and of the statistics behind another."""
FLOAT32_SHAPES: Final = ((20, 32), (20, 64), (120, 72), (4608, 64), (4608, 128))
GIVEN_LSE_CHANNELS: Final = {torch.bfloat16: (64, 72, 128), torch.float32: (64, 128)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """One kernel on one chip."""

    kernel: str
    target: str
    dtype: str
    channels: int
    keys: int
    block_queries: int
    block_keys: int
    warps: int
    stages: int
    resources: Resources | None
    problem: str | None
    """Why the kernel must not be launched; None if it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A launch to compile, and the call it belongs to."""

    target: str
    dtype: torch.dtype
    keys: int
    channels: int
    launch: Launch


def compile_all() -> Iterator[Compiled]:
    """Every kernel on every chip, once it is compiled."""
    jobs = [job for target in TARGETS for job in _jobs(target)]
    done = 0
    while done < len(jobs):
        for found in _compile_in_turn(jobs[done:]):
            yield _compiled(jobs[done], found)
            done += 1


def _compiled(job: _Job, found: Resources | str) -> Compiled:
    resources = found if isinstance(found, Resources) else None
    options = job.launch.options
    return Compiled(
        kernel=job.launch.kernel.__name__.removesuffix("_kernel"),
        target=job.target,
        dtype=str(job.dtype).removeprefix("torch."),
        channels=job.channels,
        keys=job.keys,
        block_queries=options["BLOCK_N"],
        block_keys=options["BLOCK_M"],
        warps=options["num_warps"],
        stages=options["STAGES"],
        resources=resources,
        problem=_problem(resources, job.target) if resources else str(found),
    )


def report_ahead(rows: list[Compiled]) -> None:
    """The table, one line per kernel and chip."""
    columns = "{:7} {:9} {:8} {:>4} {:>5} {:>8} {:>5} {:>5} {:>5} {:>7} {:>14} {:>6}"
    header = "target kernel dtype D keys tile warps regs spill shared matrix instr"
    print(columns.format(*header.split()))
    for row in rows:
        tile = f"{row.block_queries}x{row.block_keys}"
        call = (row.target, row.kernel, row.dtype, row.channels, row.keys, tile, row.warps)
        found = row.resources
        if found is None:
            print(columns.format(*call, *"-----"))
            continue
        matrix = " ".join(f"{count} {kind}" for kind, count in found.tensor_core.items())
        taken = (found.registers, found.spilled, found.shared, matrix, found.instructions)
        print(columns.format(*call, *taken))


def _jobs(target: str) -> Iterator[_Job]:
    """All launches of a chip; the same code once."""
    seen = set()
    for dtype, shapes in ((torch.bfloat16, HALF_SHAPES), (torch.float32, FLOAT32_SHAPES)):
        for plan in (_attention, _given_lse):
            for keys, channels in shapes:
                if plan is _given_lse and channels not in GIVEN_LSE_CHANNELS[dtype]:
                    continue
                launch = plan(target, dtype, keys, channels)
                code = (launch.kernel, dtype, *map(str, launch.options.items()))
                if code not in seen:
                    seen.add(code)
                    yield _Job(
                        target=target, dtype=dtype, keys=keys, channels=channels, launch=launch
                    )


def _attention(target: str, dtype: torch.dtype, keys: int, channels: int) -> Launch:
    query, key, roles, basis, mask = _tensors(dtype, keys, channels)
    _, launches = plan_attention(
        query, key, key, roles, basis, scale=1.0, key_mask=mask, architecture=target
    )
    return _main(launches)


def _given_lse(target: str, dtype: torch.dtype, keys: int, channels: int) -> Launch:
    query, key, roles, basis, mask = _tensors(dtype, keys, channels)
    lse = _meta(*query.shape[:3])
    _, launches = plan_given_lse(
        query, key, roles, basis, lse, scale=1.0, key_mask=mask, architecture=target
    )
    return _main(launches)


def _main(launches: list[Launch]) -> Launch:
    """The one that does the work."""
    return next(each for each in launches if each.kernel.__name__ in MAIN_KERNELS)


def _tensors(
    dtype: torch.dtype, keys: int, channels: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Query, key, roles, basis and mask, in the memory order of a model."""
    batch, heads, tokens, groups, columns = 2, 16, 4096, 8, 64
    query, key = (
        _meta(batch, length, heads, channels, dtype=dtype).transpose(1, 2)
        for length in (tokens, keys)
    )
    basis = _meta(tokens, columns, dtype=dtype if dtype == torch.float32 else torch.float16)
    return query, key, _meta(batch, keys, groups), basis, _meta(batch, keys, dtype=torch.bool)


def _meta(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(sizes, dtype=dtype, device="meta")


def _compile_in_turn(jobs: list[_Job]) -> Iterator[Resources | str]:
    """What each compiled launch takes, or why there is nothing; ends after one that hangs."""
    # Forked, so that neither torch is imported again nor the launches have to be sent.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_compile, args=(jobs, sender))
    child.start()
    sender.close()
    try:
        for _ in jobs:
            if not receiver.poll(SECONDS):
                yield f"no code after {SECONDS} s"
                return
            yield receiver.recv()
    except EOFError:
        yield "the compiler died"
    finally:
        if child.is_alive():
            # With the assembler that it may be waiting for.
            with suppress(ProcessLookupError):
                os.killpg(child.pid or 0, signal.SIGKILL)
        child.join()


def _compile(jobs: list[_Job], sender: Connection) -> None:
    os.setsid()
    for job in jobs:
        try:
            sender.send(compile_ahead(job.launch, job.target))
        except Exception as error:  # Whatever it is, the table says so.
            first_line = str(error).strip().partition("\n")[0]
            sender.send(f"{type(error).__name__}: {first_line}")


def _problem(resources: Resources, target: str) -> str | None:
    """What a kernel takes that it may not."""
    if resources.spilled:
        return f"spills {resources.spilled} bytes"
    if resources.shared > SHARED_MEMORY[target]:
        return f"takes {resources.shared} of {SHARED_MEMORY[target]} bytes of shared memory"
    if not resources.tensor_core:
        return "has no matrix instruction"
    return None
