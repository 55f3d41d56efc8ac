"""The attention calls that `kernels.py` times, and random tensors for them.

Shapes of models people use, larger ones for a GPU. Knows nothing of who computes a call.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from attnsearch_kernels import dct2
from attnsearch_kernels.cost import CallShape

SHORT_TEXT: Final = 20
"""Texts up to this long are timed in float32 on a GPU too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of call."""

    name: str
    batch: int
    heads: int
    side: int
    """Of the square grid of image tokens."""
    text: int
    """Text tokens, the keys with a role."""
    channels: int
    order: int = 8
    """Frequencies of the basis along one side."""
    image_keys: int = 0
    """Keys of joint attention that come before the text and have no role."""
    dtype: torch.dtype = torch.float32
    ragged: bool = False
    """Texts are half to fully long, the rest of them masked."""

    @property
    def shape(self) -> CallShape:
        """Sizes of the call."""
        return CallShape(
            batch=self.batch,
            heads=self.heads,
            tokens=self.side**2,
            keys=self.image_keys + self.text,
            channels=self.channels,
            roles=8,
            basis=self.order**2,
        )

    @property
    def label(self) -> str:
        """Name, dtype and kind of text."""
        kind = "joint" if self.image_keys else "ragged" if self.ragged else "full"
        return f"{self.name} {str(self.dtype).removeprefix('torch.')} {kind}"


CPU_CASES: Final = (
    Case(name="small-dit", batch=64, heads=4, side=8, text=12, channels=24, order=6),
    Case(name="paper-dit", batch=16, heads=6, side=16, text=20, channels=64),
    Case(name="pixart", batch=2, heads=16, side=32, text=120, channels=72),
)
GPU_CASES: Final = (
    *(
        Case(name=f"small-dit-{channels}", batch=256, heads=6, side=16, text=20, channels=channels)
        for channels in (32, 64)
    ),
    *(
        Case(name=f"pixart-{text}-b{batch}", batch=batch, heads=16, side=64, text=text, channels=72)
        for text in (120, 300)
        for batch in (2, 16)
    ),
    *(
        Case(
            name=f"joint-{channels}",
            batch=batch,
            heads=24,
            side=64,
            text=512,
            channels=channels,
            image_keys=4096,
        )
        for channels, batch in ((64, 2), (128, 1))
    ),
)


def cases_of(device: str, names: list[str] | None) -> list[Case]:
    """The calls timed on `cpu` or `cuda`, of the named shapes only if there are names.

    Raises:
        ValueError: a name is not one of the device's.
    """
    shapes = CPU_CASES if device == "cpu" else GPU_CASES
    known = [shape.name for shape in shapes]
    for name in names or []:
        if name not in known:
            raise ValueError(f"no shape {name!r} for {device}; it has {', '.join(known)}")
    chosen = [shape for shape in shapes if names is None or shape.name in names]
    return [case for shape in chosen for case in _kinds(shape, device)]


def _kinds(shape: Case, device: str) -> list[Case]:
    """The dtypes and texts a shape is timed with."""
    texts = (False,) if shape.image_keys else (False, True)
    first, *others = (torch.float32,) if device == "cpu" else (torch.bfloat16, torch.float16)
    if device != "cpu" and shape.text <= SHORT_TEXT:
        others.append(torch.float32)
    return [
        *(replace(shape, dtype=first, ragged=ragged) for ragged in texts),
        *(replace(shape, dtype=dtype) for dtype in others),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The tensors of one call, as `sketch_attention` takes them."""

    query: Tensor
    key: Tensor
    value: Tensor
    roles: Tensor
    basis: Tensor
    mask: Tensor | None
    scale: float

    def part(self, rows: Tensor, heads: Tensor) -> "Inputs":
        """Some batch rows and heads of the call."""
        return replace(
            self,
            **{name: getattr(self, name)[rows][:, heads] for name in ("query", "key", "value")},
            roles=self.roles[rows],
            mask=None if self.mask is None else self.mask[rows],
        )


def draw(case: Case, device: str, *, seed: int) -> Inputs:
    """Random tensors in the memory order of a model, whose heads are views of `[B, N, H D]`."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = case.shape
    query, key, value = (
        torch.randn(
            (shape.batch, length, shape.heads, shape.channels),
            generator=generator,
            dtype=case.dtype,
            device=device,
        ).transpose(1, 2)
        for length in (shape.tokens, shape.keys, shape.keys)
    )
    integers = partial(torch.randint, generator=generator, device=device)
    role = integers(0, shape.roles, (shape.batch, case.text))
    roles = functional.one_hot(role, shape.roles).float()
    lengths = integers(shape.keys // 2, shape.keys + 1, (shape.batch, 1))
    basis = dct2(case.side, case.side, case.order).to(device)
    return Inputs(
        query=query,
        key=key,
        value=value,
        roles=functional.pad(roles, (0, 0, case.image_keys, 0)),
        # What the operator asks for on a GPU.
        basis=basis if device == "cpu" or case.dtype == torch.float32 else basis.half(),
        mask=torch.arange(shape.keys, device=device) < lengths if case.ragged else None,
        scale=shape.channels**-0.5,
    )
