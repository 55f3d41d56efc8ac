"""The tolerance of tensor cores, from their rounding emulated in torch.

Triton's interpreter truncates bfloat16 and ignores the reduced precision of tensor cores, so it
cannot tell what a GPU will be off by.
"""

from dataclasses import replace

import pytest
import torch
from sketch_calls import Call, make_call

from attnsearch_kernels import Backend, SketchedAttention
from attnsearch_kernels.tolerance import largest_errors, tolerance_of, violations

HALF = (torch.float16, torch.bfloat16)


def emulate(call: Call) -> SketchedAttention:
    """Sketch attention with operands rounded where the kernels round them, sums exact."""
    query, key, value, roles, basis = (x.double() for x in call.tensors())
    scores = (call.scale * query @ key.mT).float()
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    total = weights.double().sum(-1, keepdim=True)
    output = weights.to(call.query.dtype).double() @ value / total
    role_mass = (weights.half().double() @ roles[:, None].half().double() / total).float()
    exact = call.exact()
    return SketchedAttention(
        output.to(call.query.dtype),
        basis.half().double().T @ role_mass.half().double(),
        exact.entropy,
        exact.peak,
        role_mass.double().square().sum(-2),
    )


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("sharpness", [0.0, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("keys", [3, 20, 120])
def test_rounded_operands_stay_within_the_tolerance(
    dtype: torch.dtype, sharpness: float, keys: int
) -> None:
    for seed in range(5):
        call = make_call(tokens=400, keys=keys, channels=32, columns=36, seed=seed)
        call = replace(call, query=sharpness * call.query).cast(dtype)
        errors = largest_errors(emulate(call), call.exact(), call.value)
        assert not violations(errors, dtype, Backend.TRITON)


@pytest.mark.parametrize("dtype", HALF)
def test_weights_that_all_round_one_way_come_near_the_tolerance(dtype: torch.dtype) -> None:
    # All rows alike: what one weight loses by rounding, the sums of the map lose too.
    call = make_call(batch=1, heads=1, tokens=64, keys=2, channels=1, roles=2)
    key = torch.tensor([0.0, 1.0])[None, None, :, None]
    call = replace(
        call,
        query=torch.ones_like(call.query),
        key=key,
        value=key.clone(),
        roles=torch.eye(2)[None],
        basis=torch.full((64, 1), 1 / 8),
    ).cast(dtype)
    largest = dict.fromkeys(SketchedAttention._fields, 0.0)
    for scale in torch.linspace(-1, 0, 301).tolist():
        shifted = replace(call, scale=scale)
        errors = largest_errors(emulate(shifted), shifted.exact(), shifted.value)
        assert not violations(errors, dtype, Backend.TRITON)
        largest = {name: max(largest[name], error) for name, error in errors.items()}
    for name in ("output", "sketch", "energy"):
        assert largest[name] > getattr(tolerance_of(dtype, Backend.TRITON), name) / 8
