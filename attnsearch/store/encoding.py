"""From arrays to the bytes of files and back, by Zarr, in memory.

Whatever is written into a store is encoded here and written by a `Storage`, so that its bytes are
known, and can be checked, before they are anywhere.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, cpu
from zarr.storage import MemoryStore

from attnsearch.store.coordinates import COORDINATES
from attnsearch.store.schema import ArraySpec, ScanLayout

Coordinates = Mapping[str, tuple[str, NDArray[Any]]]
"""Name to (dimension, values)."""


class BlockCodec:
    """Encodes and decodes the blocks of one layout, one at a time."""

    def __init__(self, layout: ScanLayout) -> None:
        self._layout = layout
        self._files: dict[str, Buffer] = {}
        store = MemoryStore(self._files)
        self._arrays = {spec.name: _create(store, spec) for spec in layout.arrays()}

    def encode(self, block: int, arrays: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
        """The files of a block by name, relative to the scan; arrays in the types of the layout."""
        rows = self._layout.block_slice(block)
        files = {}
        for spec in self._layout.arrays():
            self._arrays[spec.name][rows] = arrays[spec.name]
            files[spec.file(block)] = self._files.pop(spec.file(block)).to_bytes()
        return files

    def decode(self, block: int, files: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
        """The arrays of a block.

        Raises:
            Exception: damaged bytes make the decoders raise almost anything.
        """
        rows = self._layout.block_slice(block)
        arrays = {}
        for spec in self._layout.arrays():
            name = spec.file(block)
            self._files[name] = cpu.Buffer.from_bytes(files[name])
            try:
                arrays[spec.name] = np.asarray(self._arrays[spec.name][rows])
            finally:
                del self._files[name]
        return arrays


def encode_arrays(layout: ScanLayout, coordinates: Coordinates) -> dict[str, bytes]:
    """The files of a scan that do not change: metadata of all arrays, values of coordinates."""
    files: dict[str, Buffer] = {}
    store = MemoryStore(files)
    for spec in layout.arrays():
        _create(store, spec)
    long_names = {spec.name: spec.long_name for spec in COORDINATES}
    for name, (dimension, values) in coordinates.items():
        spec = ArraySpec(
            name=name,
            dimensions=(dimension,),
            shape=values.shape,
            chunks=values.shape,
            shards=None,
            dtype="string" if values.dtype.kind == "T" else str(values.dtype),
            attributes={"long_name": long_names[name]} if name in long_names else {},
        )
        _create(store, spec)[:] = values
    del files["zarr.json"]  # Zarr's own of the group, which `groups` writes
    return {name: buffer.to_bytes() for name, buffer in files.items()}


def decode_array(name: str, files: Mapping[str, bytes]) -> NDArray[Any]:
    """The values of one array among the files of a scan.

    Raises:
        Exception: damaged bytes make the decoders raise almost anything.
    """
    store = MemoryStore(
        {
            key: cpu.Buffer.from_bytes(data)
            for key, data in files.items()
            if key.startswith(f"{name}/")
        },
        read_only=True,
    )
    return np.asarray(zarr.open_array(store, path=name, mode="r")[:])


def _create(store: Store, spec: ArraySpec) -> zarr.Array[Any]:
    return zarr.create_array(
        store,
        name=spec.name,
        shape=spec.shape,
        chunks=spec.chunks,
        shards=spec.shards,
        dtype=spec.dtype,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=float("nan") if spec.dtype.startswith("float") else None,
        dimension_names=spec.dimensions,
        attributes={**spec.attributes},
        # One folder an array rather than one a dimension: fewer folders to force to the disk.
        chunk_key_encoding={"name": "default", "separator": "."},
        # All-zero chunks are written too: absent must mean not scanned. Zarr does not store this.
        config={"write_empty_chunks": True},
    )
