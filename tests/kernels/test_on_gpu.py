"""The Triton kernels as they run on a GPU."""

from dataclasses import replace

import pytest
import torch
from sketch_calls import Call, make_call

from attnsearch_kernels import Backend, SketchedAttention, resolve_backend, sketch_attention
from attnsearch_kernels.tolerance import largest_errors, violations

pytestmark = pytest.mark.gpu

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def on_gpu(call: Call) -> Call:
    tensors = (x.cuda() for x in call.tensors())
    mask = None if call.key_mask is None else call.key_mask.cuda()
    return Call(*tensors, call.scale, mask)


def assert_agrees(actual: SketchedAttention, call: Call) -> None:
    errors = largest_errors(actual, call.exact(), call.value)
    assert not violations(errors, call.query.dtype, Backend.TRITON)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [16, 24, 32, 40, 64, 72, 128])
@pytest.mark.parametrize("keys", [1, 20, 64, 120, 300, 900])
def test_auto_runs_triton_and_equals_the_definition(
    dtype: torch.dtype, channels: int, keys: int
) -> None:
    lengths = (keys, keys // 2, 0)
    call = make_call(tokens=600, keys=keys, channels=channels, columns=64, lengths=lengths)
    call = on_gpu(call.cast(dtype))
    assert resolve_backend(call.query, call.roles, call.basis) == Backend.TRITON
    assert_agrees(call.run(Backend.AUTO), call)
    half = replace(call, basis=call.basis.half())
    assert_agrees(half.run(Backend.AUTO), half)


@pytest.mark.parametrize("dtype", DTYPES)
def test_image_keys_without_a_role_share_the_softmax_only(dtype: torch.dtype) -> None:
    call = make_call(batch=1, tokens=700, keys=860, channels=64)
    roles = call.roles.clone()
    roles[:, :700] = 0
    call = on_gpu(replace(call, roles=roles).cast(dtype))
    assert_agrees(call.run(Backend.TRITON), call)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keys", [20, 300])
def test_bits_depend_neither_on_the_run_nor_on_the_batch(dtype: torch.dtype, keys: int) -> None:
    call = make_call(batch=64, heads=4, tokens=1300, keys=keys, channels=32)
    call = on_gpu(call.cast(dtype))
    first, again = call.run(Backend.TRITON), call.run(Backend.TRITON)
    row = replace(
        call, query=call.query[5:6], key=call.key[5:6], value=call.value[5:6], roles=call.roles[5:6]
    ).run(Backend.TRITON)
    for wanted, repeated, alone in zip(first, again, row, strict=True):
        assert torch.equal(wanted, repeated)
        assert torch.equal(wanted[5], alone[0])


@pytest.mark.parametrize("keys", [20, 300])
def test_memory_does_not_hold_the_map(keys: int) -> None:
    call = on_gpu(make_call(batch=8, heads=8, tokens=4096, keys=keys, channels=64).cast(DTYPES[2]))
    call.run(Backend.TRITON)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call.run(Backend.TRITON)
    peak = torch.cuda.max_memory_allocated() - before
    answer = sum(x.nbytes for x in result)
    assert peak < 1.5 * answer
    assert peak - answer < 8 * 8 * 4096 * keys * 2


@pytest.mark.parametrize("statistics_of", ["attention", "lse"])
def test_opcheck_is_clean(statistics_of: str) -> None:
    call = on_gpu(make_call(tokens=100, keys=140, channels=32, lengths=(140, 3, 0)))
    query, key, value, roles, basis = call.tensors()
    how = {"scale": call.scale, "backend": "triton"}
    if statistics_of == "attention":
        operator = torch.ops.attnsearch.sketch_attention.default
        torch.library.opcheck(operator, (query, key, value, roles, basis, call.key_mask), how)
    else:
        operator = torch.ops.attnsearch.sketch_given_lse.default
        lse = call.lse().float()
        torch.library.opcheck(operator, (query, key, roles, basis, lse, call.key_mask), how)


@pytest.mark.filterwarnings("default")  # inductor's imports warn
def test_compiles_into_one_graph_and_equals_eager() -> None:
    call = on_gpu(make_call(tokens=100, channels=32))

    def attend(query: torch.Tensor) -> SketchedAttention:
        return sketch_attention(2 * query, *call.tensors()[1:], scale=call.scale)

    for found, wanted in zip(
        torch.compile(attend, fullgraph=True)(call.query), attend(call.query), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_triton_does_not_take_runs_on_plain_torch() -> None:
    call = on_gpu(make_call(channels=160))
    assert resolve_backend(call.query, call.roles, call.basis) == Backend.TORCH
    assert_agrees(call.run(Backend.AUTO), call)
    with pytest.raises(ValueError, match="at most 128 channels, not 160"):
        call.run(Backend.TRITON)
