"""What the Triton kernels promise beyond the laws of sketch attention; interpreted."""

from dataclasses import replace

import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from sketch_calls import Call, make_call
from torch import Tensor

from attnsearch_kernels import Backend, SketchedAttention, resolve_backend, sketch_attention
from attnsearch_kernels.tolerance import largest_errors, violations
from attnsearch_kernels.triton import launch
from attnsearch_kernels.triton.launch import ROWS_PER_PROGRAM
from attnsearch_kernels.triton.operators import configuration_of, sketch_attention_triton

CANARY = 12345.0
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def run(call: Call, kernel: str | None = None) -> SketchedAttention:
    return sketch_attention_triton(
        *call.tensors(), scale=call.scale, key_mask=call.key_mask, kernel=kernel
    )


def assert_agrees(actual: SketchedAttention, call: Call) -> None:
    errors = largest_errors(actual, call.exact(), call.value)
    assert not violations(errors, call.query.dtype, Backend.TRITON)


@st.composite
def large_calls(draw: st.DrawFn) -> Call:
    """Calls whose sizes fall on all sides of the tiles'; ragged, some image keys without a role."""
    keys = draw(st.integers(1, 300))
    call = make_call(
        batch=2,
        heads=1,
        tokens=draw(st.integers(1, 200)),
        keys=keys,
        channels=draw(st.sampled_from([1, 16, 24, 40, 64, 72, 100, 128])),
        roles=draw(st.integers(1, 16)),
        columns=1,
        lengths=draw(st.none() | st.tuples(*[st.integers(0, keys)] * 2)),
        seed=draw(st.integers(0, 2**16)),
    )
    begin = draw(st.integers(0, keys))
    end = draw(st.integers(begin, keys))
    roles = torch.zeros_like(call.roles)
    roles[:, begin:end] = call.roles[:, begin:end]
    columns = draw(st.integers(1, 64))
    generator = torch.Generator().manual_seed(columns)
    tokens = call.query.shape[2]
    basis = torch.randn(tokens, columns, generator=generator) / tokens**0.5
    return replace(call, roles=roles, basis=basis).cast(draw(st.sampled_from(DTYPES)))


@examples(6, deep=120)
@given(call=large_calls(), kernel=st.sampled_from([None, "long"]))
def test_triton_equals_the_definition_on_all_sides_of_its_tiles(
    call: Call, kernel: str | None
) -> None:
    assert_agrees(run(call, kernel), call)


@pytest.mark.parametrize("basis_dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("keys", [20, 150])
def test_triton_takes_a_basis_of_any_precision(basis_dtype: torch.dtype, keys: int) -> None:
    call = make_call(tokens=100, keys=keys, channels=32).cast(torch.float16)
    call = replace(call, basis=call.basis.to(basis_dtype))
    assert_agrees(run(call), call)


@pytest.mark.parametrize("keys", [20, 150])
def test_triton_adds_the_parts_of_a_large_image(keys: int) -> None:
    call = make_call(batch=1, heads=1, tokens=ROWS_PER_PROGRAM + 76, keys=keys, channels=16)
    assert_agrees(run(call), call)


@pytest.mark.parametrize("keys", [20, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_triton_gives_a_row_the_same_bits_in_any_batch(keys: int, dtype: torch.dtype) -> None:
    lengths = (keys, 3)
    call = make_call(
        batch=2, heads=1, tokens=ROWS_PER_PROGRAM + 40, keys=keys, channels=16, lengths=lengths
    ).cast(dtype)
    together = run(call)
    for row in range(2):
        alone = Call(
            *(x[row : row + 1] for x in call.tensors()[:4]),
            call.basis,
            call.scale,
            call.key_mask[row : row + 1],
        )
        for found, wanted in zip(run(alone), together, strict=True):
            assert torch.equal(found[0], wanted[row])


@pytest.mark.parametrize("keys", [20, 150])
def test_triton_writes_all_of_its_results_and_nothing_beside(
    keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffers = []
    empty = torch.empty

    def guarded(shape: tuple[int, ...], **kwargs: object) -> Tensor:
        size = torch.Size(shape).numel()
        buffer = empty(size + 128, **kwargs).fill_(CANARY)
        buffers.append((buffer, size))
        inner = buffer[64 : 64 + size].view(shape)
        return inner.fill_(torch.nan) if inner.is_floating_point() else inner

    monkeypatch.setattr(torch, "empty", guarded)
    monkeypatch.setattr(torch, "empty_like", lambda like: guarded(like.shape, dtype=like.dtype))
    call = make_call(batch=2, heads=1, tokens=ROWS_PER_PROGRAM + 77, keys=keys, channels=40)
    result = run(call)
    monkeypatch.undo()
    assert len(buffers) > 6
    for buffer, size in buffers:
        assert bool((buffer[:64] == CANARY).all())
        assert bool((buffer[64 + size :] == CANARY).all())
    assert_agrees(result, call)


@pytest.mark.parametrize("keys", [20, 150])
def test_triton_reads_nothing_beside_its_arguments(keys: int) -> None:
    call = make_call(tokens=77, keys=keys, channels=40, lengths=(keys, 5, 0))

    def surround(tensor: Tensor) -> Tensor:
        around = torch.full([size + 2 for size in tensor.shape], torch.nan, dtype=tensor.dtype)
        inner = around[tuple(slice(1, -1) for _ in tensor.shape)]
        return inner.copy_(tensor)

    query, key, value, roles, basis = (surround(x) for x in call.tensors())
    surrounded = Call(query, key, value, roles, basis, call.scale, call.key_mask)
    for found, wanted in zip(run(surrounded), run(call), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("dtype", "keys", "kernels"),
    [
        (torch.float16, 20, ["fused_kernel"]),
        (torch.float16, 128, ["fused_kernel"]),
        (torch.float16, 129, ["extents_kernel", "long_kernel"]),
        (torch.float32, 32, ["fused_kernel"]),
        (torch.float32, 33, ["extents_kernel", "long_kernel"]),
    ],
)
def test_triton_kernel_that_is_announced_is_the_kernel_that_runs(
    dtype: torch.dtype, keys: int, kernels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    start = launch.Launch.start

    def recording(self: launch.Launch) -> None:
        ran.append(self.kernel.__name__)
        start(self)

    monkeypatch.setattr(launch.Launch, "start", recording)
    call = make_call(keys=keys, channels=16).cast(dtype)
    assert resolve_backend(call.query, call.roles, call.basis, "triton") == Backend.TRITON
    announced = configuration_of(call.query, call.key)
    call.run(Backend.TRITON)
    assert ran == kernels
    assert f"{announced.kernel}_kernel" == kernels[-1]


def test_triton_output_keeps_the_memory_order_of_the_query() -> None:
    call = make_call(tokens=30, channels=16)
    split = call.query.transpose(1, 2).contiguous().transpose(1, 2)
    result = replace(call, query=split).run(Backend.TRITON)
    assert result.output.stride() == split.stride()
    assert torch.equal(result.output, call.run(Backend.TRITON).output)


@pytest.mark.parametrize("keys", [20, 150])
@pytest.mark.parametrize("scale", [-0.3, 0.0])
def test_triton_takes_a_scale_of_any_sign(keys: int, scale: float) -> None:
    call = replace(make_call(tokens=50, keys=keys, channels=16), scale=scale)
    assert_agrees(run(call), call)


@pytest.mark.parametrize(
    ("keys", "order"),
    [(5, (0, 1, 2, 3)), (5, (3, 1, 2, 0)), (140, (0, 2, 1, 3))],
)
def test_triton_passes_opcheck_in_any_memory_order(keys: int, order: tuple[int, ...]) -> None:
    call = make_call(keys=keys, lengths=(keys, 3, 0))
    back = tuple(order.index(axis) for axis in range(4))
    call = replace(call, query=call.query.permute(order).contiguous().permute(back))
    torch.library.opcheck(
        torch.ops.attnsearch.sketch_attention.default,
        (*call.tensors(), call.key_mask),
        {"scale": call.scale, "backend": "triton"},
    )


def test_triton_compiles_into_one_graph_and_equals_eager() -> None:
    call = make_call(tokens=40, channels=16)

    def attend(query: Tensor) -> SketchedAttention:
        rest = call.tensors()[1:]
        return sketch_attention(2 * query, *rest, scale=call.scale, backend="triton")

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(compiled(call.query), attend(call.query), strict=True):
        torch.testing.assert_close(found, wanted)
