"""The cost model and the tolerance table."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnsearch_kernels import SketchedAttention
from attnsearch_kernels.cost import CallShape, attention_flops, bytes_moved, sketch_flops
from attnsearch_kernels.reference import reference_float64
from attnsearch_kernels.tolerance import TOLERANCES, Tolerance, largest_errors, violations

SHAPE = CallShape(batch=2, heads=3, tokens=16, keys=5, channels=8, roles=4, basis=9)


def test_flops_are_those_torch_counts_for_the_definition() -> None:
    query, key = torch.ones(2, 3, 16, 8), torch.ones(2, 3, 5, 8)
    with FlopCounterMode(display=False) as counter:
        reference_float64(query, key, key, torch.ones(2, 5, 4), torch.ones(16, 9), scale=1.0)
    assert counter.get_total_flops() == attention_flops(SHAPE) + sketch_flops(SHAPE)


def test_cost_of_the_sketch_hardly_grows_with_the_basis_at_paper_shapes() -> None:
    paper = CallShape(batch=2, heads=16, tokens=1024, keys=120, channels=72, roles=8, basis=64)
    assert sketch_flops(paper) / attention_flops(paper) < 0.1
    assert sketch_flops(paper) < 1.5 * sketch_flops(replace(paper, basis=4))


@pytest.mark.parametrize("itemsize", [2, 4])
def test_bytes_are_those_of_all_inputs_and_results(itemsize: int) -> None:
    query_like, key_like = 2 * (2 * 3 * 16 * 8), 2 * (2 * 3 * 5 * 8)
    constants = 2 * 5 * 4 + 16 * 9
    statistics = 2 * 3 * (9 * 4 + 16 + 16 + 4)
    expected = itemsize * (query_like + key_like) + 4 * (constants + statistics) + 2 * 5
    assert bytes_moved(SHAPE, itemsize=itemsize) == expected


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="keys = -1"):
        replace(SHAPE, keys=-1)


def _result(fill: float) -> SketchedAttention:
    shapes = [(1, 1, 4, 2), (1, 1, 3, 2), (1, 1, 4), (1, 1, 4), (1, 1, 2)]
    return SketchedAttention(*(torch.full(shape, fill).double() for shape in shapes))


def test_errors_are_measured_in_the_unit_of_each_field() -> None:
    errors = largest_errors(_result(1.0), _result(0.0), torch.tensor([-10.0, 2.0]))
    assert errors == {"output": 0.1, "sketch": 0.5, "entropy": 1.0, "peak": 1.0, "energy": 0.25}


@pytest.mark.parametrize("wrong", [1.0, float("nan")])
def test_a_wrong_field_is_a_violation_and_an_exact_one_is_not(wrong: float) -> None:
    exact = _result(0.0)
    for name in SketchedAttention._fields:
        damaged = exact._replace(**{name: getattr(_result(wrong), name)})
        errors = largest_errors(damaged, exact, torch.ones(1))
        assert list(violations(errors, torch.bfloat16)) == [name]
    assert not violations(largest_errors(exact, exact, torch.ones(1)), torch.float32)


def test_a_tolerance_that_admits_nothing_or_everything_is_refused() -> None:
    for bound in (0.0, 1.0):
        with pytest.raises(ValueError, match="output"):
            Tolerance(output=bound)


def test_the_output_tolerance_is_near_half_a_unit_in_the_last_place() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        half_unit = torch.finfo(dtype).eps / 2
        assert half_unit < TOLERANCES[dtype].output < 1.5 * half_unit
