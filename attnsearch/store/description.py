"""What the metadata of a scan's arrays say, believed only where the layout says the same.

Zarr would take any shape that a file claims, and ask for the memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from attnsearch.axes import BASIS, BRANCH, HEAD, LAYER, REGION, ROLE, SAMPLE, STEP
from attnsearch.store.encoding import decode_array
from attnsearch.store.groups import METADATA_NAME, damaged
from attnsearch.store.schema import ArraySpec, ScanLayout
from attnsearch.store.storage import Storage

_METADATA: Final = f"/{METADATA_NAME}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One array: of data, or a coordinate with its values."""

    dimensions: tuple[str, ...]
    attributes: Mapping[str, Any]
    """`units` and `long_name`."""
    values: NDArray[Any] | None
    """None of a data array."""


def describe_arrays(
    storage: Storage, scan: str, layout: ScanLayout, files: Mapping[str, bytes]
) -> dict[str, Description]:
    """Every array of a scan by name; `files` are those that never change.

    Raises:
        StoreError: an array is missing, or its metadata or values do not fit the layout.
    """
    names = [name.removesuffix(_METADATA) for name in files if name.endswith(_METADATA)]
    specs = {spec.name for spec in layout.arrays()}
    if missing := sorted(specs.difference(names)):
        raise damaged(storage, f"{scan}/{missing[0]}", "is missing")
    return {name: describe_array(storage, scan, layout, name, files) for name in names}


def describe_array(
    storage: Storage, scan: str, layout: ScanLayout, name: str, files: Mapping[str, bytes]
) -> Description:
    """One array of a scan.

    Raises:
        StoreError: its metadata or values do not fit the layout.
    """
    spec = next((spec for spec in layout.arrays() if spec.name == name), None)
    try:
        return _described(layout, name, spec, json.loads(files[name + _METADATA]), files)
    except MemoryError:
        raise
    except Exception as error:  # metadata of any form, and whatever decoders raise
        raise damaged(storage, f"{scan}/{name}{_METADATA}", "does not fit the scan") from error


def _described(
    layout: ScanLayout,
    name: str,
    spec: ArraySpec | None,
    metadata: Any,
    files: Mapping[str, bytes],
) -> Description:
    dimensions = tuple(metadata["dimension_names"])
    shape = tuple(metadata["shape"])
    attributes = dict(metadata["attributes"])
    if spec is not None:
        said = {
            "shape": shape,
            "dimensions": dimensions,
            "dtype": metadata["data_type"],
            "file": tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]),
        }
        expected = {
            "shape": spec.shape,
            "dimensions": spec.dimensions,
            "dtype": spec.dtype,
            "file": spec.shards or spec.chunks,
        }
        if said != expected:
            raise ValueError(f"{said} is not {expected}")
        return Description(dimensions=dimensions, attributes=attributes, values=None)
    (dimension,) = dimensions
    if shape != (_sizes(layout)[dimension],):
        raise ValueError(f"{shape} is not the size of {dimension}")
    values = decode_array(name, files)
    return Description(dimensions=dimensions, attributes=attributes, values=values)


def _sizes(layout: ScanLayout) -> dict[str, int]:
    """The sizes of the dimensions that coordinates lie along."""
    return {
        SAMPLE: layout.samples,
        STEP: layout.steps,
        BRANCH: len(layout.branches),
        LAYER: layout.layers,
        HEAD: layout.heads,
        ROLE: len(layout.roles),
        REGION: len(layout.regions),
        BASIS: layout.order**2,
    }
