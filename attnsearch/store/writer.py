"""Write one scan into a store, block by block, so that a kill at any instant costs one block.

A group appears at once with all its metadata and never changes shape; a block is written as one
file of each array, made durable, and only then entered in the ledger. Opening an existing group
continues it. What the arrays are is `schema`'s business; one process writes a store at a time.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from zlib import crc32

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from attnsearch.errors import StoreError
from attnsearch.store.groups import (
    METADATA_NAME,
    UNFINISHED,
    check_name,
    consolidate,
    disk_errors,
    read_group,
    replace,
    sync,
    write_group,
)
from attnsearch.store.ledger import LEDGER_NAME, Ledger, Record
from attnsearch.store.schema import (
    COORDINATES,
    LAYOUT_ATTRIBUTE,
    REGION_COEFFICIENTS,
    SCHEMA_ATTRIBUTE,
    SCHEMA_VERSION,
    ArraySpec,
    ScanLayout,
)

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

Coordinates: TypeAlias = Mapping[str, tuple[str, NDArray[Any]]]

# CF's word for "these variables are coordinates"; xarray reads it.
_COORDINATES_ATTRIBUTE: Final = "coordinates"


class ScanWriter:
    """The one writer of one scan. Everything committed is durable; there is nothing to close."""

    __slots__ = ("_arrays", "_group", "_ledger", "layout")

    def __init__(self, group: Path, layout: ScanLayout, ledger: Ledger) -> None:
        self.layout = layout
        self._group = group
        self._ledger = ledger
        self._arrays = {spec.name: _open_array(group / spec.name) for spec in layout.arrays()}

    @classmethod
    def open(
        cls,
        store: Path,
        name: str,
        layout: ScanLayout,
        coordinates: Mapping[str, NDArray[Any]],
        attributes: Mapping[str, JSON],
    ) -> Self:
        """A writer for scan `name` of `store`: a new one, or the same one continued.

        Creates the store if it is absent (its parent must exist). `coordinates` are for all
        samples, as `ScanLayout.coordinates` takes them. Blocks that were not committed are removed.

        Raises:
            StoreError: `store` is something else or of another version, cannot be written, or
                holds a scan of this name with another layout, coordinates or attributes.
            ValueError: coordinates or attributes do not have the form the layout asks for.
        """
        check_name(name)
        complete = layout.coordinates(coordinates)
        described = _group_attributes(layout, complete, attributes)
        group = store / name
        with disk_errors("write", group):
            _ensure_store(store)
            if group.exists():
                _check_same(group, complete, described)
            else:
                _create(group, layout, complete, described)
            consolidate(store)
            ledger = _recover(group, layout)
            return cls(group, layout, ledger)

    @property
    def committed(self) -> int:
        """Number of blocks that exist: always the first ones, without a gap."""
        return len(self._ledger.records)

    def write_block(self, index: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write block `index`, which must be the first absent one, and commit it.

        `arrays` holds every array of the layout, restricted to the block's samples, in its dtype
        or a wider one of the same kind. When this returns the block survives a power cut.

        Raises:
            StoreError: a number that should be finite is not, or the disk refuses. The block is
                then absent and can be written again.
            ValueError: another block is next, or names, shapes or dtypes are not the layout's.
        """
        if index != self.committed or index >= self.layout.blocks:
            raise ValueError(
                f"block {index} is not next: {self.committed} of {self.layout.blocks} are written"
            )
        specs = self.layout.arrays()
        if arrays.keys() != {spec.name for spec in specs}:
            different = sorted(arrays.keys() ^ {spec.name for spec in specs})
            raise ValueError(f"the arrays of a block are those of the layout: {different}")
        samples = self.layout.block_slice(index)
        checked = [_checked(spec, arrays[spec.name], samples, index) for spec in specs]
        with disk_errors("write", self._group):
            for spec, values in zip(specs, checked, strict=True):
                self._arrays[spec.name][samples] = values
            files = {spec.file(index): self._make_durable(spec.file(index)) for spec in specs}
            for spec in specs:
                sync(self._group / spec.name)
            self._ledger.append(Record(block=index, files=files))

    def finalise(self) -> None:
        """List every scan in the store's own metadata, so that it opens as one tree.

        Opening a scan does this too; once more at the end is right if scans came or went
        meanwhile. Any number of times gives the same bytes.

        Raises:
            StoreError: the disk refuses.
        """
        with disk_errors("write", self._group.parent):
            consolidate(self._group.parent)

    def _make_durable(self, name: str) -> tuple[int, int]:
        path = self._group / name
        sync(path)
        data = path.read_bytes()
        return len(data), crc32(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.finalise()


def _group_attributes(
    layout: ScanLayout, coordinates: Coordinates, attributes: Mapping[str, JSON]
) -> dict[str, Any]:
    # Xarray knows a variable that is called like its dimension for a coordinate by itself.
    named = [name for name, (dimension, _) in coordinates.items() if name != dimension]
    ours = {
        SCHEMA_ATTRIBUTE: SCHEMA_VERSION,
        LAYOUT_ATTRIBUTE: layout.to_dict(),
        _COORDINATES_ATTRIBUTE: " ".join(sorted(named)),
    }
    if taken := sorted(attributes.keys() & ours.keys()):
        raise ValueError(f"the store itself writes the attributes {', '.join(taken)}")
    # Through JSON and back, so that they compare equal to what a file holds.
    given: dict[str, Any] = json.loads(json.dumps(dict(attributes), allow_nan=False))
    return given | ours


def _ensure_store(store: Path) -> None:
    if not store.exists():
        store.mkdir()
        sync(store.parent)
    elif not store.is_dir():
        raise StoreError(f"{store} is a file, not an attnsearch store")
    unfinished = METADATA_NAME + UNFINISHED
    if all(child.name == unfinished for child in store.iterdir()):
        write_group(store, {SCHEMA_ATTRIBUTE: SCHEMA_VERSION})
    read_group(store)
    (store / unfinished).unlink(missing_ok=True)


def _create(
    group: Path, layout: ScanLayout, coordinates: Coordinates, attributes: dict[str, Any]
) -> None:
    """Build the whole group under another name, then rename it: it exists whole or not at all."""
    building = group.with_name(group.name + UNFINISHED)
    if building.exists():
        shutil.rmtree(building)
    building.mkdir()
    write_group(building, attributes)
    for spec in layout.arrays():
        _create_array(building, spec)
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
        _create_array(building, spec)[:] = values
    consolidate(building)
    replace(building / LEDGER_NAME, b"")
    for path in [*building.rglob("*"), building]:
        sync(path)
    building.rename(group)
    sync(group.parent)


def _create_array(group: Path, spec: ArraySpec) -> zarr.Array[Any]:
    zarr.create_array(
        group / spec.name,
        shape=spec.shape,
        chunks=spec.chunks,
        shards=spec.shards,
        dtype=spec.dtype,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=float("nan") if spec.dtype.startswith("float") else None,
        dimension_names=spec.dimensions,
        attributes={**spec.attributes},
        # One folder an array rather than one a dimension: fewer folders to make durable.
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    return _open_array(group / spec.name)


def _open_array(path: Path) -> zarr.Array[Any]:
    # All-zero chunks are written too: absent must mean not scanned. Zarr does not store this.
    return zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": True})


def _check_same(group: Path, coordinates: Coordinates, attributes: dict[str, Any]) -> None:
    stored = read_group(group)["attributes"]
    differences = _differences(stored, attributes)
    if not differences:
        differences = [
            f"coordinate {name}"
            for name, (_, values) in coordinates.items()
            if not np.array_equal(zarr.open_array(group / name, mode="r")[:], values)
        ]
    if differences:
        raise StoreError(
            f"{group} holds a different scan: {', '.join(differences)}; "
            "choose another --name or another store"
        )


def _differences(stored: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    found = []
    for name in sorted(stored.keys() | asked.keys()):
        there, here = stored.get(name), asked.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            found += [f"{name}.{difference}" for difference in _differences(there, here)]
        else:
            found.append(f"{name} ({_short(there)} there, {_short(here)} asked)")
    return found


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _recover(group: Path, layout: ScanLayout) -> Ledger:
    """The ledger of a group, after removing whatever it does not vouch for."""
    ledger = Ledger.load(group / LEDGER_NAME)
    if damage := ledger.first_damage():
        raise StoreError(f"{group} is damaged: {damage}; remove that folder and scan again")
    ledger.trim()
    kept = {name for record in ledger.records for name in record.files}
    for spec in layout.arrays():
        for path in (group / spec.name).glob("c.*"):
            if f"{spec.name}/{path.name}" not in kept:
                path.unlink()
    return ledger


def _checked(
    spec: ArraySpec, values: NDArray[Any], samples: slice, block: int
) -> NDArray[np.generic]:
    shape = (samples.stop - samples.start, *spec.shape[1:])
    if values.shape != shape:
        raise ValueError(f"{spec.name} of block {block} has shape {values.shape}, not {shape}")
    if not np.can_cast(values.dtype, spec.dtype, casting="same_kind"):
        raise ValueError(f"{spec.name} of block {block} is {values.dtype}, not {spec.dtype}")
    with np.errstate(over="ignore"):
        stored = values.astype(spec.dtype, copy=False)
    finite = spec.dtype.startswith("float") and spec.name != REGION_COEFFICIENTS
    if finite and not np.isfinite(stored).all():
        raise StoreError(
            f"{spec.name} of block {block} is not finite in {spec.dtype}; "
            "the checkpoint's attention is broken"
        )
    return stored
