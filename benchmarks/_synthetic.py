"""Stores of any size, written as fast as the disk takes them.

They are as a scan writes them, but for two things. A few different blocks are encoded once, and
written again and again, each time as files of their own; and their numbers are drawn at random, so
that nothing of attention is true of them. What reads a store cannot tell.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from attnsearch.axes import REGIONS, ROLES
from attnsearch.prompts import Prompt, coordinates_of
from attnsearch.scanning import read_captions
from attnsearch.store import FLAGGED, SCORES, ScanLayout, ScanWriter
from attnsearch.store.encoding import BlockCodec
from attnsearch.store.ledger import PACKED, BlockRecord, FileMark, read_fixed
from attnsearch.store.local import LocalStorage
from attnsearch.task.spec import PRESETS

NAME: Final = "synthetic"
"""Of the scan."""
STEPS: Final = 14
LAYERS: Final = 6
HEADS: Final = 6
ORDER: Final = 8
GRID: Final = (8, 8)
BLOCK: Final = 16
"""Samples; what a scan of this model would choose."""
MAPS_PER_SAMPLE: Final = STEPS * 2 * LAYERS * HEADS

_TEMPLATES: Final = 8
_AT_ONCE: Final = 4


def write_store(path: Path, maps: int, seed: int = 0) -> ScanLayout:
    """Write a store of one scan of at least so many maps, in whole blocks."""
    samples = -(-maps // (MAPS_PER_SAMPLE * BLOCK)) * BLOCK
    layout = ScanLayout(
        samples=samples,
        steps=STEPS,
        branches=("uncond", "cond"),
        layers=LAYERS,
        heads=HEADS,
        roles=ROLES,
        regions=REGIONS,
        scores=tuple(SCORES),
        order=ORDER,
        block=BLOCK,
        canvas=(32, 32),
    )
    attributes: dict[str, Any] = {
        "grid": list(GRID),
        "keys": 20,
        "attention": "cross",
        "sampler": {},
    }
    with ScanWriter.open(path, NAME, layout, _coordinates(samples), attributes):
        fixed = read_fixed(LocalStorage(path), NAME)
    assert fixed is not None
    templates = _templates(layout, seed)
    for spec in layout.arrays():
        (path / NAME / spec.name).mkdir(exist_ok=True)

    def write(block: int) -> bytes:
        files = templates[block % len(templates)]
        marks = {}
        for spec in layout.arrays():
            data, crc = files[spec.name]
            (path / NAME / spec.file(block)).write_bytes(data)
            marks[spec.file(block)] = FileMark(len(data), crc)
        record = BlockRecord(block=block, scan=fixed.fingerprint, flagged=(), files=marks)
        return record.line()

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        lines = list(pool.map(write, range(layout.blocks)))
    (path / NAME / PACKED).write_bytes(b"".join(lines))
    return layout


def _coordinates(samples: int) -> dict[str, NDArray[Any]]:
    """Those of the task's grid of captions, seed after seed."""
    captions = read_captions("grid", PRESETS["small"])
    prompts: list[Prompt] = list(islice(cycle(captions), samples))
    return {
        "prompt": np.array([prompt.text for prompt in prompts], dtype=object),
        **{name: np.array(column, object) for name, column in coordinates_of(prompts).items()},
        "held_out": np.zeros(samples, dtype=bool),
        "seed": np.arange(samples) // len(captions),
        "timestep": np.linspace(1, 0, STEPS, dtype=np.float32),
        "noise_level": np.linspace(1, 0, STEPS, dtype=np.float32),
    }


def _templates(layout: ScanLayout, seed: int) -> list[dict[str, tuple[bytes, int]]]:
    """Different blocks: by array, the bytes of the file and their checksum."""
    codec = BlockCodec(layout)
    encoded = []
    for number, arrays in enumerate(islice(_blocks(layout, seed), min(_TEMPLATES, layout.blocks))):
        files = codec.encode(number, arrays)
        encoded.append(
            {
                spec.name: (files[spec.file(number)], crc32(files[spec.file(number)]))
                for spec in layout.arrays()
            }
        )
    return encoded


def _blocks(layout: ScanLayout, seed: int) -> Iterator[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(seed)
    # Every head, role and coefficient has a mean of its own.
    sketch_mean = rng.normal(size=(LAYERS, HEADS, len(ROLES), ORDER**2))
    while True:
        arrays: dict[str, NDArray[Any]] = {}
        for spec in layout.arrays():
            shape = (BLOCK, *spec.shape[1:])
            if spec.name == "sketch":
                arrays[spec.name] = (sketch_mean + rng.normal(size=shape)).astype(np.float16)
            elif spec.dtype == "bool":
                arrays[spec.name] = np.zeros(shape, bool)
            elif spec.dtype == "uint8":
                arrays[spec.name] = rng.integers(0, 256, shape, dtype=np.uint8)
            else:
                arrays[spec.name] = rng.uniform(0.5, 1, size=shape).astype(np.float32)
        arrays[FLAGGED][:] = False
        arrays["region_coefficients"][0] = np.nan  # an image in which no objects were found
        yield arrays
