"""The cost model and the tolerance table."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from attnsearch_kernels import SketchedAttention
from attnsearch_kernels.cost import (
    DEVICES,
    CallShape,
    Device,
    Floor,
    attention_bytes,
    attention_floor_microseconds,
    attention_flops,
    bytes_moved,
    find_device,
    floor_microseconds,
    sketch_flops,
)
from attnsearch_kernels.reference import reference_float64
from attnsearch_kernels.tolerance import TOLERANCES, Tolerance, largest_errors, violations

SHAPE = CallShape(batch=2, heads=3, tokens=16, keys=5, channels=8, roles=4, basis=9)
PIXART = CallShape(batch=2, heads=16, tokens=4096, keys=120, channels=72, roles=8, basis=64)
SMALL_DIT = CallShape(batch=256, heads=6, tokens=256, keys=20, channels=64, roles=8, basis=64)
PARTS = ("memory", "matrix", "exponential")
SHAPES = st.builds(CallShape, **{entry.name: st.integers(0, 512) for entry in fields(CallShape)})
ON = st.sampled_from(list(DEVICES.values()))
ITEMSIZE = st.sampled_from([2, 4])


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


def test_plain_attention_moves_what_has_nothing_to_do_with_the_sketch() -> None:
    plain = replace(SHAPE, roles=0, basis=0)
    row_statistics = 4 * 2 * plain.maps * plain.tokens
    assert attention_bytes(SHAPE, itemsize=2) == bytes_moved(plain, itemsize=2) - row_statistics


@given(shape=SHAPES, device=ON, itemsize=ITEMSIZE)
def test_a_floor_is_its_largest_part_and_names_it(
    shape: CallShape, device: Device, itemsize: int
) -> None:
    for of in (floor_microseconds, attention_floor_microseconds):
        floor = of(shape, device, itemsize=itemsize)
        parts = [getattr(floor, part) for part in PARTS]
        assert floor.microseconds == max(parts) == getattr(floor, floor.limit)
        assert min(parts) >= 0


@pytest.mark.parametrize("part", PARTS)
def test_each_part_can_be_the_limit(part: str) -> None:
    floor = Floor(**{name: 2.0 if name == part else 1.0 for name in PARTS})
    assert (floor.limit, floor.microseconds) == (part, 2.0)


@given(shape=SHAPES, device=ON, itemsize=ITEMSIZE, more=st.integers(1, 100))
@pytest.mark.parametrize("size", [entry.name for entry in fields(CallShape)])
def test_no_part_of_a_floor_falls_when_a_size_grows(
    size: str, shape: CallShape, device: Device, itemsize: int, more: int
) -> None:
    larger = replace(shape, **{size: getattr(shape, size) + more})
    for of in (floor_microseconds, attention_floor_microseconds):
        before, after = (of(s, device, itemsize=itemsize) for s in (shape, larger))
        assert all(getattr(before, part) <= getattr(after, part) for part in PARTS)


@pytest.mark.parametrize("size", [entry.name for entry in fields(CallShape)])
def test_the_floor_of_a_real_shape_grows_with_every_size(size: str) -> None:
    larger = replace(PIXART, **{size: 2 * getattr(PIXART, size)})
    before, after = (
        floor_microseconds(s, DEVICES["H100"], itemsize=2).microseconds for s in (PIXART, larger)
    )
    assert before < after


@given(shape=SHAPES, device=ON, itemsize=ITEMSIZE)
def test_a_sketch_is_never_free(shape: CallShape, device: Device, itemsize: int) -> None:
    sketched = floor_microseconds(shape, device, itemsize=itemsize)
    plain = attention_floor_microseconds(shape, device, itemsize=itemsize)
    assert all(getattr(sketched, part) >= getattr(plain, part) for part in PARTS)


@pytest.mark.parametrize(
    ("shape", "memory", "matrix", "exponential", "sketched"),
    [(PIXART, 13.0, 5.7, 4.0, 14.8), (SMALL_DIT, 36.2, 2.5, 2.0, 38.4)],
    ids=["PixArt, 120 tokens", "small DiT"],
)
def test_floors_are_those_derived_for_the_h100(
    shape: CallShape, memory: float, matrix: float, exponential: float, sketched: float
) -> None:
    plain = attention_floor_microseconds(shape, DEVICES["H100"], itemsize=2)
    assert plain.memory == pytest.approx(memory, rel=0.01)
    assert plain.matrix == pytest.approx(matrix, rel=0.03)
    assert plain.exponential == pytest.approx(exponential, rel=0.03)
    assert plain.limit == "memory"
    # The derivation also counts partial sums, which one block of queries per map does without.
    floor = floor_microseconds(shape, DEVICES["H100"], itemsize=2)
    assert floor.microseconds == pytest.approx(sketched, rel=0.15)


def test_float32_products_are_slower_than_a_third_of_half_precision() -> None:
    for device in DEVICES.values():
        assert device.flops_per_second(4) < device.flops_per_second(2) / 3
    with pytest.raises(ValueError, match="itemsize = 8"):
        floor_microseconds(SHAPE, DEVICES["H100"], itemsize=8)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("AMD Instinct MI300X", "MI300X"),
        ("h200", "H200"),
    ],
)
def test_a_device_is_found_by_the_name_torch_gives_it(name: str, short: str) -> None:
    assert find_device(name) is DEVICES[short]


@pytest.mark.parametrize(
    "name",
    [
        "cpu",
        "",
        "NVIDIA GH200 480GB",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100-SXM4-40GB",
        "NVIDIA GeForce RTX 4090",
    ],
)
def test_an_unknown_device_is_none_and_so_is_another_board_of_a_known_chip(name: str) -> None:
    assert find_device(name) is None


@pytest.mark.parametrize("wrong", [{"half_flops": 0.0}, {"measured": frozenset({"colour"})}])
def test_a_device_without_rates_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(DEVICES["H200"], **wrong)


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
