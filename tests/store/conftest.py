"""A scan of random attention, the same in every process."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from attnsearch.axes import REGIONS, RELATIONS, ROLES
from attnsearch.store import FLAGGED, SCORES, ScanLayout, ScanWriter, Turn

GRID = (3, 4)
KEYS = 10


def cosines(count: int, order: int) -> NDArray[np.float64]:
    """The lowest frequencies of an orthonormal DCT-II [position, frequency]."""
    k, i = np.arange(order)[None, :], np.arange(count)[:, None]
    return np.sqrt(np.where(k == 0, 1, 2) / count) * np.cos(np.pi * k * (2 * i + 1) / (2 * count))


def random_attention(layout: ScanLayout, samples: int, seed: int) -> dict[str, NDArray[Any]]:
    """The statistics of softmax maps of random logits, as a model would give them."""
    rng = np.random.default_rng(seed)
    tokens, order = GRID[0] * GRID[1], layout.order
    maps = (samples, layout.steps, len(layout.branches), layout.layers, layout.heads)
    weights = np.exp(2 * rng.normal(size=(*maps, tokens, KEYS)))
    weights /= weights.sum(-1, keepdims=True)
    roles = np.eye(len(layout.roles))[np.arange(KEYS) % len(layout.roles)]
    attention = weights @ roles
    rows, columns = (cosines(count, order) for count in GRID)
    basis = np.einsum("yk,xl->yxkl", rows, columns).reshape(tokens, order**2)
    return {
        "sketch": np.einsum("...ng,nf->...gf", attention, basis).astype(np.float32),
        "entropy": -(weights * np.log(weights)).sum(-1).mean(-1).astype(np.float32),
        "peak": weights.max(-1).mean(-1).astype(np.float32),
        "energy": np.square(attention).sum(-2).astype(np.float32),
    }


@dataclass(frozen=True, kw_only=True)
class SyntheticScan:
    """What a scan would hand to the writer."""

    layout: ScanLayout
    coordinates: dict[str, NDArray[Any]]
    attributes: dict[str, Any]
    flagged: tuple[int, ...] = ()
    """Samples that are."""

    def block(self, index: int) -> dict[str, NDArray[Any]]:
        rows = self.layout.block_slice(index)
        rng = np.random.default_rng(index)
        arrays = random_attention(self.layout, rows.stop - rows.start, index)
        for spec in self.layout.arrays():
            shape = (rows.stop - rows.start, *spec.shape[1:])
            if spec.name == FLAGGED:
                arrays[FLAGGED] = np.isin(np.arange(rows.start, rows.stop), self.flagged)
            elif spec.dtype == "bool":
                arrays[spec.name] = rng.random(shape) < 0.5
            elif spec.dtype == "uint8":
                arrays[spec.name] = rng.integers(0, 256, shape, dtype=np.uint8)
            elif spec.name not in arrays:
                arrays[spec.name] = rng.normal(size=shape).astype(np.float32)
        if self.layout.regions:
            arrays["region_coefficients"][0] = np.nan
        return arrays

    def whole(self, name: str) -> NDArray[Any]:
        return np.concatenate([self.block(i)[name] for i in range(self.layout.blocks)])

    def open(self, store: Path | str, name: str = "model") -> ScanWriter:
        return ScanWriter.open(store, name, self.layout, self.coordinates, self.attributes)

    def write(self, store: Path | str, name: str = "model", *, blocks: int | None = None) -> None:
        """Write all blocks, or the first `blocks`, continuing from what is there."""
        last = self.layout.blocks if blocks is None else blocks
        with self.open(store, name) as writer:
            for index in range(last):
                if writer.claim(index) is Turn.OURS:
                    writer.write_block(index, self.block(index))


def make_scan(*, flagged: tuple[int, ...] = (), **sizes: Any) -> SyntheticScan:
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
    attributes = {
        "sampler": "euler",
        "guidance": 4.5,
        "model": {"digest": "abc", "sizes": [1, 2]},
        "attention": "cross",
        "grid": list(GRID),
        "keys": KEYS,
    }
    return SyntheticScan(
        layout=layout, coordinates=coordinates, attributes=attributes, flagged=flagged
    )


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that speaks as S3 does and keeps everything in memory."""
    # It chooses the port, so that no other process can take it in between.
    code = (
        "import signal\n"
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', port=0, verbose=False)\n"
        "server.start()\n"
        "print(server.get_host_and_port()[1], flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a bucket of its own, which the environment leads to."""
    bucket = f"b{uuid4()}"
    with urlopen(Request(f"{s3_server}/{bucket}", method="PUT")):
        pass
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{bucket}"
