"""Which backend runs, what the operator refuses, and how it behaves as a torch custom op."""

import pytest
import torch
from torch import Tensor

from attnsearch_kernels import (
    Backend,
    SketchedAttention,
    dispatch,
    resolve_backend,
    sketch_attention,
)


def _resolve(backend: str) -> Backend:
    inputs = _inputs()
    return resolve_backend(inputs["query"], inputs["roles"], inputs["basis"], backend)


def _inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "query": (2, 3, 9, 4),
        "key": (2, 3, 5, 4),
        "value": (2, 3, 5, 4),
        "roles": (2, 5, 8),
        "basis": (9, 4),
    }
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("asked", "runs"),
    [("auto", Backend.TORCH), ("torch", Backend.TORCH), (Backend.REFERENCE, Backend.REFERENCE)],
)
def test_the_backend_that_is_named_is_the_backend_that_runs(
    asked: str, runs: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Backend] = []

    def recording(backend: Backend) -> object:
        implementation = dispatch._ATTENTION[backend]

        def run(*args: Tensor, **kwargs: object) -> SketchedAttention:
            ran.append(backend)
            return implementation(*args, **kwargs)

        return run

    spies = {backend: recording(backend) for backend in (Backend.TORCH, Backend.REFERENCE)}
    monkeypatch.setattr(dispatch, "_ATTENTION", spies)
    sketch_attention(**_inputs(), scale=0.5, backend=asked)
    assert ran == [runs] == [_resolve(asked)]


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    known = "choose one of auto, reference, torch, triton"
    with pytest.raises(ValueError, match=f"unknown backend 'cuDNN'; {known}"):
        _resolve("cuDNN")


def test_triton_on_a_cpu_is_refused_instead_of_falling_back_silently() -> None:
    with pytest.raises(ValueError, match="query is on cpu and TRITON_INTERPRET=1 is not set"):
        _resolve("triton")
    with pytest.raises(ValueError, match="triton backend cannot take this call"):
        sketch_attention(**_inputs(), scale=0.5, backend=Backend.TRITON)


def test_triton_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"triton is not installed.*attnsearch\[gpu\]"):
        _resolve("triton")
    assert _resolve("auto") == Backend.TORCH


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("query", torch.ones(2, 9, 4), r"query must be \[B, H, N, D\]"),
        ("key", torch.ones(2, 5, 4), r"key must be \[B, H, M, D\]"),
        ("key", torch.ones(2, 3, 5, 6), r"key is \[2, 3, 5, 6\] .* \[2, 3, 5, 4\]"),
        ("value", torch.ones(2, 3, 6, 4), r"value is \[2, 3, 6, 4\]"),
        ("roles", torch.ones(5, 8), r"roles is \[5, 8\], expected \[2, 5, G\]"),
        ("roles", torch.ones(2, 5, 8, dtype=torch.int64), "roles must be of a float dtype"),
        ("basis", torch.ones(8, 4), r"basis is \[8, 4\], expected \[9, F\]"),
        ("basis", torch.ones(9, 4, device="meta"), "basis is on meta"),
        ("value", torch.ones(2, 3, 5, 4).half(), "must share a dtype"),
        ("key_mask", torch.ones(2, 5), "key_mask must be bool"),
        ("key_mask", torch.ones(2, 4).bool(), r"key_mask is \[2, 4\], expected \[2, 5\]"),
        ("key_mask", torch.ones(2, 5, device="meta").bool(), "key_mask is on meta"),
    ],
)
def test_tensors_that_disagree_are_refused_by_name(
    name: str, replacement: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sketch_attention(**_inputs() | {name: replacement}, scale=0.5)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_opcheck_is_clean(backend: str, dtype: torch.dtype, masked: bool) -> None:
    tensors = [x.to(dtype) for x in _inputs().values()]
    mask = torch.arange(5) < torch.tensor([[5], [2]]) if masked else None
    torch.library.opcheck(
        torch.ops.attnsearch.sketch_attention.default,
        (*tensors, mask),
        {"scale": 0.5, "backend": backend},
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_as_one_graph_and_equals_eager(dynamic: bool) -> None:
    def attend(query: Tensor, mask: Tensor | None, **rest: Tensor) -> SketchedAttention:
        result = sketch_attention(2 * query, **rest, scale=0.5, key_mask=mask)
        return result._replace(entropy=result.entropy + 1)

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    inputs = _inputs()
    for mask in (None, torch.arange(5) < torch.tensor([[5], [2]])):
        actual, expected = compiled(**inputs, mask=mask), attend(**inputs, mask=mask)
        assert isinstance(actual, SketchedAttention)
        for found, wanted in zip(actual, expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_a_backward_pass_raises_instead_of_giving_a_wrong_gradient() -> None:
    inputs = _inputs()
    inputs["query"].requires_grad_()
    result = sketch_attention(**inputs, scale=0.5)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        result.output.sum().backward()
