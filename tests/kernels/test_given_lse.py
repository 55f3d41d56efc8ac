"""The statistics behind an attention that ran elsewhere, for every backend."""

import os
from dataclasses import replace

import pytest
import torch
from budget import examples
from hypothesis import given
from sketch_calls import Call, calls, make_call

from attnsearch_kernels import Backend, MapStatistics, SketchedAttention, sketch_given_lse
from attnsearch_kernels.tolerance import largest_errors, violations

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS = (Backend.TRITON,) if INTERPRETED else (Backend.REFERENCE, Backend.TORCH)


def assert_agrees(statistics: MapStatistics, call: Call, backend: Backend) -> None:
    exact = call.exact()
    errors = largest_errors(SketchedAttention(exact.output, *statistics), exact, call.value)
    assert not violations(errors, call.query.dtype, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@examples(5 if INTERPRETED else 18, deep=200)
@given(call=calls())
def test_equals_the_statistics_of_the_definition(backend: Backend, call: Call) -> None:
    assert_agrees(call.run_given_lse(backend), call, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_inputs_give_float32_statistics(
    backend: Backend, dtype: torch.dtype
) -> None:
    call = make_call(lengths=(7, 4, 0), channels=24, tokens=90).cast(dtype)
    statistics = call.run_given_lse(backend)
    assert {x.dtype for x in statistics} == {torch.float32}
    assert_agrees(statistics, call, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("infinity", [torch.inf, -torch.inf])
@pytest.mark.parametrize("with_mask", [False, True])
def test_rows_without_keys_are_zero_whatever_sign_their_infinity_has(
    backend: Backend, infinity: float, with_mask: bool
) -> None:
    call = make_call(lengths=(5, 0, 2) if with_mask else None)
    lse = call.lse()
    lse[1] = infinity
    query, key, _, roles, basis = call.tensors()
    how = {"scale": call.scale, "key_mask": call.key_mask, "backend": backend}
    for statistic in sketch_given_lse(query, key, roles, basis, lse, **how):
        assert statistic[1].count_nonzero() == 0
        assert statistic[0].count_nonzero() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_works_behind_the_attention_of_torch(backend: Backend) -> None:
    call = make_call(keys=40, tokens=70, channels=16)
    _, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        call.query, call.key, call.value, scale=call.scale
    )
    query, key, _, roles, basis = call.tensors()
    statistics = sketch_given_lse(query, key, roles, basis, lse, scale=call.scale, backend=backend)
    assert_agrees(statistics, call, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck_is_clean_triton_or_not(backend: Backend) -> None:
    call = make_call(lengths=(7, 4, 1))
    query, key, _, roles, basis = call.tensors()
    torch.library.opcheck(
        torch.ops.attnsearch.sketch_given_lse.default,
        (query, key, roles, basis, call.lse().float(), call.key_mask),
        {"scale": call.scale, "backend": backend.value},
    )


def test_an_lse_of_another_shape_is_refused() -> None:
    call = make_call()
    call = replace(call, query=call.query[:, :, :5], basis=call.basis[:5])
    query, key, _, roles, basis = call.tensors()
    with pytest.raises(ValueError, match=r"lse is \[3, 2, 4\] on cpu, expected \[3, 2, 5\]"):
        sketch_given_lse(query, key, roles, basis, torch.zeros(3, 2, 4), scale=1.0)
