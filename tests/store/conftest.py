"""A scan made of random numbers, the same ones in every process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attnsearch.axes import REGIONS, RELATIONS, ROLES
from attnsearch.store import SCORES, ScanLayout, ScanWriter


@dataclass(frozen=True, kw_only=True)
class SyntheticScan:
    """What a scan would hand to the writer."""

    layout: ScanLayout
    coordinates: dict[str, NDArray[Any]]
    attributes: dict[str, Any]

    def block(self, index: int) -> dict[str, NDArray[Any]]:
        samples = self.layout.block_slice(index)
        rng = np.random.default_rng(index)
        arrays: dict[str, NDArray[Any]] = {}
        for spec in self.layout.arrays():
            shape = (samples.stop - samples.start, *spec.shape[1:])
            if spec.dtype == "bool":
                arrays[spec.name] = rng.random(shape) < 0.5
            elif spec.dtype == "uint8":
                arrays[spec.name] = rng.integers(0, 256, shape, dtype=np.uint8)
            else:
                arrays[spec.name] = rng.normal(size=shape).astype(np.float32)
        if self.layout.regions:
            arrays["region_coefficients"][0] = np.nan
        return arrays

    def whole(self, name: str) -> NDArray[Any]:
        return np.concatenate([self.block(i)[name] for i in range(self.layout.blocks)])

    def open(self, store: Path, name: str = "model") -> ScanWriter:
        return ScanWriter.open(store, name, self.layout, self.coordinates, self.attributes)

    def write(self, store: Path, name: str = "model", *, blocks: int | None = None) -> None:
        """Write all blocks, or the first `blocks`, continuing from what is there."""
        last = self.layout.blocks if blocks is None else blocks
        with self.open(store, name) as writer:
            for index in range(writer.committed, last):
                writer.write_block(index, self.block(index))


def make_scan(**sizes: Any) -> SyntheticScan:
    layout = ScanLayout(
        **{
            "samples": 7,
            "steps": 2,
            "branches": ("cond", "uncond"),
            "layers": 2,
            "heads": 3,
            "roles": ROLES,
            "regions": REGIONS,
            "scores": tuple(SCORES),
            "order": 2,
            "block": 3,
            "canvas": (4, 5),
            **sizes,
        }
    )
    numbers = np.arange(layout.samples)
    text = np.array([f"a {i} über square" for i in numbers], dtype=object)
    relation = np.array([RELATIONS[i % len(RELATIONS)] for i in numbers], dtype=object)
    coordinates = dict.fromkeys(
        ("prompt", "relation_words", "colour1", "shape1", "colour2", "shape2"), text
    ) | {
        "relation": relation,
        "held_out": np.zeros(layout.samples, dtype=bool),
        "seed": numbers + 100,
        "timestep": np.linspace(1, 0, layout.steps, dtype=np.float32),
        "noise_level": np.linspace(1, 0, layout.steps, dtype=np.float32),
    }
    attributes = {"sampler": "euler", "guidance": 4.5, "model": {"digest": "abc", "sizes": [1, 2]}}
    return SyntheticScan(layout=layout, coordinates=coordinates, attributes=attributes)


@pytest.fixture(scope="session")
def make() -> Callable[..., SyntheticScan]:
    return make_scan


@pytest.fixture
def scan() -> SyntheticScan:
    """Seven samples in blocks of three: two whole blocks and a partial one."""
    return make_scan()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.zarr"
