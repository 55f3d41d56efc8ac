"""The laws of sketch attention, for every backend of this build, against the definition."""

import os
from collections.abc import Callable
from dataclasses import replace
from math import log

import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from sketch_calls import Call, calls, make_call
from torch import Tensor
from torch.nn import functional

from attnsearch_kernels import Backend, SketchedAttention, dct2
from attnsearch_kernels.plain import MAP_ENTRIES_PER_CHUNK
from attnsearch_kernels.tolerance import largest_errors, violations

# Interpreted kernels need a process of their own, which runs these laws again (see conftest.py).
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS = (Backend.TRITON,) if INTERPRETED else (Backend.REFERENCE, Backend.TORCH)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, *(() if INTERPRETED else (torch.float64,)))


@pytest.fixture(autouse=True, scope="module")
def _poisoned_empty() -> object:
    """Memory that a backend allocates and forgets to write shows up as NaN."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def allocate_poisoned(*args: object, **kwargs: object) -> Tensor:
            tensor = allocate(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        return allocate_poisoned

    with pytest.MonkeyPatch.context() as patch:
        for name in ("empty", "empty_like"):
            patch.setattr(torch, name, poisoned(getattr(torch, name)))
        yield


def assert_agrees(actual: SketchedAttention, call: Call, backend: Backend) -> None:
    errors = largest_errors(actual, call.exact(), call.value)
    assert not violations(errors, call.query.dtype, backend)


def assert_same(actual: SketchedAttention, expected: SketchedAttention) -> None:
    for found, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@examples(5 if INTERPRETED else 18, deep=200)
@given(call=calls())
def test_equals_the_definition_on_any_shape_and_mask(backend: Backend, call: Call) -> None:
    assert_agrees(call.run(backend), call, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_only_the_output_is_rounded_to_the_dtype(backend: Backend, dtype: torch.dtype) -> None:
    call = make_call(lengths=(7, 4, 0), channels=24).cast(dtype)
    result = call.run(backend)
    assert_agrees(result, call, backend)
    assert [x.dtype for x in result] == [dtype] + [torch.float32] * 4
    assert result.output.shape == call.query.shape
    assert result.sketch.shape == (3, 2, 9, 8)
    assert result.entropy.shape == result.peak.shape == (3, 2, 20)
    assert result.energy.shape == (3, 2, 8)


def test_one_map_larger_than_a_chunk_and_many_chunks_equal_the_definition() -> None:
    tokens, keys = 1024, 2
    maps_per_chunk = MAP_ENTRIES_PER_CHUNK // (tokens * keys)
    many = make_call(batch=2, heads=maps_per_chunk, tokens=tokens, keys=keys, lengths=(2, 1))
    assert_agrees(many.run(Backend.TORCH), many, Backend.TORCH)
    keys = MAP_ENTRIES_PER_CHUNK // tokens + 1
    large = make_call(batch=1, tokens=tokens, keys=keys)
    assert_agrees(large.run(Backend.TORCH), large, Backend.TORCH)


def test_definition_is_the_formula_written_out() -> None:
    call = make_call(batch=1, heads=1, tokens=3, keys=2, roles=2, columns=2)
    query, key, value = (x[0, 0].double() for x in (call.query, call.key, call.value))
    roles, basis = call.roles[0].double(), call.basis.double()
    weights = torch.exp(call.scale * query @ key.T)
    attention = weights / weights.sum(1, keepdim=True)
    exact = call.exact()
    torch.testing.assert_close(exact.output[0, 0], attention @ value)
    torch.testing.assert_close(exact.sketch[0, 0], basis.T @ attention @ roles)
    torch.testing.assert_close(exact.entropy[0, 0], -(attention * attention.log()).sum(1))
    torch.testing.assert_close(exact.peak[0, 0], attention.max(1).values)
    torch.testing.assert_close(exact.energy[0, 0], ((attention @ roles) ** 2).sum(0))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, (6, 3, 1)])
def test_output_equals_torch_attention(backend: Backend, lengths: tuple[int, ...] | None) -> None:
    call = make_call(lengths=lengths)
    mask = None if call.key_mask is None else call.key_mask[:, None, None, :]
    plain = functional.scaled_dot_product_attention(
        call.query, call.key, call.value, attn_mask=mask, scale=call.scale
    )
    torch.testing.assert_close(call.run(backend).output, plain, atol=3e-6, rtol=3e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, (6, 3, 1)])
def test_sketch_summed_over_roles_is_the_basis_transform_of_ones(
    backend: Backend, lengths: tuple[int, ...] | None
) -> None:
    call = make_call(tokens=36, lengths=lengths)
    call = replace(call, basis=dct2(6, 6, 4))
    total = call.run(backend).sketch.sum(-1)
    expected = call.basis.T @ torch.ones(36)
    torch.testing.assert_close(total, expected.expand(3, 2, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@examples(4 if INTERPRETED else 9, deep=100)
@given(call=calls(), seed=st.integers(0, 99))
def test_permuting_heads_permutes_every_result(backend: Backend, call: Call, seed: int) -> None:
    order = torch.randperm(call.query.shape[1], generator=torch.Generator().manual_seed(seed))
    permuted = replace(
        call, query=call.query[:, order], key=call.key[:, order], value=call.value[:, order]
    )
    expected = SketchedAttention(*(x[:, order] for x in call.run(backend)))
    assert_same(permuted.run(backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@examples(4 if INTERPRETED else 9, deep=100)
@given(call=calls(), seed=st.integers(0, 99))
def test_permuting_keys_with_roles_and_mask_changes_nothing(
    backend: Backend, call: Call, seed: int
) -> None:
    order = torch.randperm(call.key.shape[2], generator=torch.Generator().manual_seed(seed))
    permuted = replace(
        call,
        key=call.key[:, :, order],
        value=call.value[:, :, order],
        roles=call.roles[:, order],
        key_mask=None if call.key_mask is None else call.key_mask[:, order],
    )
    assert_same(permuted.run(backend), call.run(backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_keys_equal_absent_keys(backend: Backend) -> None:
    call = make_call(lengths=(4, 4, 4))
    loud = replace(call, key=call.key.clone(), value=call.value.clone())
    loud.key[:, :, 4:] *= 1000
    loud.value[:, :, 4:] = 1e6
    short = replace(
        call,
        key=call.key[:, :, :4],
        value=call.value[:, :, :4],
        roles=call.roles[:, :4],
        key_mask=None,
    )
    assert_same(loud.run(backend), short.run(backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_keys_are_zero_and_leave_their_neighbours_alone(backend: Backend) -> None:
    result = make_call(lengths=(5, 0, 2)).run(backend)
    for statistic in result:
        assert statistic[1].count_nonzero() == 0
        assert statistic[0].count_nonzero() > 0
    assert_same(
        SketchedAttention(*(x[2] for x in result)),
        SketchedAttention(*(x[2] for x in make_call(lengths=(5, 7, 2)).run(backend))),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("masked", [False, True])
def test_no_text_gives_zeros(backend: Backend, masked: bool) -> None:
    result = make_call(keys=0, lengths=(0, 0, 0) if masked else None).run(backend)
    assert result.sketch.shape == (3, 2, 9, 8)
    assert all(statistic.count_nonzero() == 0 for statistic in result)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_token_of_text_takes_all_attention(backend: Backend) -> None:
    call = make_call(keys=1)
    result = call.run(backend)
    torch.testing.assert_close(result.output, call.value.expand_as(call.query))
    assert result.entropy.count_nonzero() == 0
    assert bool((result.peak == 1).all())


@pytest.mark.parametrize("backend", BACKENDS)
@examples(4 if INTERPRETED else 9, deep=100)
@given(call=calls())
def test_statistics_stay_in_their_ranges(backend: Backend, call: Call) -> None:
    result = call.run(backend)
    batch, heads, tokens, _ = call.query.shape
    mask = call.key_mask
    if mask is None:
        mask = torch.ones(batch, call.key.shape[2], dtype=torch.bool)
    keys = mask.sum(1).clamp_min(1)[:, None, None]
    has_key = mask.any(1)[:, None, None].expand(batch, heads, tokens)
    assert bool((result.entropy >= 0).all())
    assert bool((result.entropy <= keys.log() + 2e-6).all())
    assert bool((result.peak <= 1 + 1e-6).all())
    assert bool(((result.peak >= 1 / keys - 1e-6) | ~has_key).all())
    assert bool((result.energy >= 0).all())
    assert bool((result.energy.sum(-1) <= tokens * (1 + 1e-6)).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_uniform_map_has_the_largest_entropy_and_the_smallest_peak(backend: Backend) -> None:
    call = make_call(keys=5)
    result = replace(call, query=torch.zeros_like(call.query)).run(backend)
    torch.testing.assert_close(result.entropy, torch.full((3, 2, 20), log(5)))
    torch.testing.assert_close(result.peak, torch.full((3, 2, 20), 0.2))
    role_mass = call.roles.mean(1)[:, None].expand(3, 2, 8)
    torch.testing.assert_close(result.energy, 20 * role_mass.square())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("factor", [100.0, 1e4])
def test_sharp_maps_stay_finite_and_become_an_argmax(backend: Backend, factor: float) -> None:
    call = make_call(lengths=(7, 5, 2))
    sharp = replace(call, query=factor * call.query)
    result = sharp.run(backend)
    assert all(bool(x.isfinite().all()) for x in result)
    clear = result.peak > 0.999
    assert clear.float().mean() > 0.9
    assert bool((result.entropy[clear] < 0.01).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_of_joint_attention_without_a_role_share_the_softmax_only(backend: Backend) -> None:
    call = make_call(keys=9)
    roles = call.roles.clone()
    roles[:, 4:] = 0
    joint = replace(call, roles=roles)
    result, plain = joint.run(backend), call.run(backend)
    assert_agrees(result, joint, backend)
    for name in ("output", "entropy", "peak"):
        assert torch.equal(getattr(result, name), getattr(plain, name))
    assert bool((result.energy.sum(-1) < plain.energy.sum(-1)).all())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_roles_and_basis_may_be_of_any_float_dtype(backend: Backend, dtype: torch.dtype) -> None:
    call = make_call()
    call = replace(call, roles=call.roles.to(dtype), basis=call.basis.to(dtype))
    assert_agrees(call.run(backend), call, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_of_the_inputs_do_not_matter(backend: Backend) -> None:
    call = make_call(lengths=(7, 3, 5))

    def scatter(tensor: Tensor) -> Tensor:
        strided = tensor.mT.contiguous().mT
        assert strided.stride(-1) != 1
        return strided

    query, key, value, roles = (scatter(x) for x in call.tensors()[:4])
    basis = call.basis.T.contiguous().T
    mask = call.key_mask.T.contiguous().T
    strided = Call(query, key, value, roles, basis, call.scale, mask)
    assert_same(strided.run(backend), call.run(backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_are_left_as_they_were(backend: Backend, dtype: torch.dtype) -> None:
    call = make_call(lengths=(7, 3, 0)).cast(dtype)
    inputs = (*call.tensors(), call.key_mask)
    before = [x.clone() for x in inputs]
    call.run(backend)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_do_not_depend_on_autocast(backend: Backend) -> None:
    call = make_call(lengths=(7, 3, 5))
    with torch.autocast("cpu", torch.bfloat16):
        result = call.run(backend)
        statistics = call.run_given_lse(backend)
    for found, wanted in zip(result, call.run(backend), strict=True):
        assert torch.equal(found, wanted)
    for found, wanted in zip(statistics, call.run_given_lse(backend), strict=True):
        assert torch.equal(found, wanted)
