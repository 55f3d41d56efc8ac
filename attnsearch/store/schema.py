"""What a store holds: the layout of one scan, its arrays and its coordinates.

Everything here is arithmetic on shapes and names. Nothing touches a disk: `writer` and `reader`
do that. `docs/store.md` says the same for a reader who has none of our code.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from reprlib import repr as short
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from attnsearch.axes import (
    BASIS,
    BRANCH,
    HEAD,
    LAYER,
    REGION,
    ROLE,
    SAMPLE,
    SKETCH_AXES,
    STEP,
)
from attnsearch.errors import ConfigError, StoreError
from attnsearch.store.coordinates import COORDINATES, CoordinateSpec

SCHEMA_VERSION: Final = 3
"""Raised whenever a store of one version would be misread by a reader of another."""

SCHEMA_ATTRIBUTE: Final = "attnsearch_schema"
LAYOUT_ATTRIBUTE: Final = "layout"
COORDINATES_ATTRIBUTE: Final = "coordinates"
"""CF's word for "these variables are coordinates"; xarray reads it."""

MAP_AXES: Final = SKETCH_AXES[:5]
"""Dimensions of a number that every map has one of: sample, step, branch, layer, head."""

REGION_COEFFICIENTS: Final = "region_coefficients"
"""Not `region`, which is the dimension and holds the regions' names."""

FLAGGED: Final = "flagged"
"""Whether a sample is kept out of everything."""

MAX_SAMPLES: Final = 10_000_000
"""Of one scan: each is a row of its coordinates, held in memory."""
MAX_BLOCK_BYTES: Final = 2**36
MAX_SIZE: Final = 2**20
"""Of any dimension but samples."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")

SCORES: Final = {
    "score_shape": "both shapes of the caption are in the image",
    "score_colour": "every colour that the caption names is in the image; false if none",
    "score_binding": "each object of the caption is in the image exactly once",
    "score_relation_strict": "the relation holds by the strict rule",
    "score_relation_loose": "the relation holds by the loose rule",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """One stored data array. Its first dimension is always `sample`."""

    name: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    """The unit of reading and of compression."""
    shards: tuple[int, ...] | None
    """The unit of writing, a file; None where that is the chunk itself."""
    dtype: str
    attributes: Mapping[str, str]
    """`units` and `long_name`."""

    @property
    def bytes(self) -> int:
        """Uncompressed size."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def file(self, block: int) -> str:
        """Path, relative to the scan's group, of the one file that holds `block`."""
        return f"{self.name}/c." + ".".join([str(block), *["0"] * (len(self.shape) - 1)])


_LISTS: Final = {"branches": str, "roles": str, "regions": str, "scores": str, "canvas": int}
"""Fields of a layout that hold several values, and of what type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLayout:
    """The sizes of one scan, from which every stored shape follows.

    Raises:
        ConfigError: a size is below one, or a list of labels repeats itself or may not be empty.
    """

    samples: int
    steps: int
    branches: tuple[str, ...]
    layers: int
    heads: int
    roles: tuple[str, ...]
    regions: tuple[str, ...]
    """Empty where nothing looks for objects in the images."""
    scores: tuple[str, ...]
    """Names in `SCORES` that every image is given; empty where nothing scores them."""
    order: int
    """K: the basis holds the K x K lowest frequencies."""
    block: int
    """Samples written together; the last block may be shorter."""
    canvas: tuple[int, int]
    """Height and width of a thumbnail, in pixels."""

    def __post_init__(self) -> None:
        for name in ("samples", "steps", "layers", "heads", "order", "block"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if min(self.canvas) < 1:
            raise ConfigError(f"canvas must be a height and a width, not {self.canvas}")
        for name in ("branches", "roles", "regions", "scores"):
            labels = getattr(self, name)
            may_be_empty = name in ("regions", "scores")
            if len(set(labels)) < len(labels) or not (labels or may_be_empty):
                raise ConfigError(f"{name} must be different labels, at least one, not {labels}")
        if unknown := set(self.scores) - SCORES.keys():
            raise ConfigError(f"no score is called {', '.join(sorted(unknown))}")
        if max(self.steps, self.layers, self.heads, self.order, *self.canvas) > MAX_SIZE:
            raise ConfigError(f"no size of a scan may exceed {MAX_SIZE:,}")
        if self.samples > MAX_SAMPLES:
            raise ConfigError(
                f"{self.samples:,} samples are more than the {MAX_SAMPLES:,} of one scan; "
                "take fewer prompts or seeds, or several scans"
            )
        block = self.bytes // self.samples * min(self.block, self.samples)
        if block > MAX_BLOCK_BYTES:
            raise ConfigError(
                f"a block of {self.block} samples takes {block >> 30} GiB, more than the "
                f"{MAX_BLOCK_BYTES >> 30} GiB a block may have; take a smaller --batch"
            )

    @property
    def blocks(self) -> int:
        """Number of blocks, the last of which may be shorter than the others."""
        return -(-self.samples // self.block)

    @property
    def maps(self) -> int:
        """Number of attention maps the scan sketches."""
        return self.samples * self.steps * len(self.branches) * self.layers * self.heads

    @property
    def bytes(self) -> int:
        """Uncompressed size of the data arrays."""
        return sum(spec.bytes for spec in self.arrays())

    def block_slice(self, index: int) -> slice:
        """The samples of block `index`.

        Raises:
            IndexError: there is no such block.
        """
        if not 0 <= index < self.blocks:
            raise IndexError(f"block {index} of {self.blocks}")
        return slice(index * self.block, min((index + 1) * self.block, self.samples))

    def arrays(self) -> tuple[ArraySpec, ...]:
        """The data arrays. A block of samples is one file of each."""
        heads = (self.samples, self.steps, len(self.branches), self.layers, self.heads)
        roles = len(self.roles)
        basis = self.order * self.order
        picture = (self.samples, *self.canvas, 3)
        return (
            self._array(
                "sketch",
                SKETCH_AXES,
                (*heads, roles, basis),
                "float16",
                "coefficients of the attention of image tokens to the role",
                # What is asked is always of one branch and of few roles, but of all heads.
                apart=(BRANCH, ROLE),
            ),
            self._array("entropy", MAP_AXES, heads, "float32", "mean row entropy", units="nat"),
            self._array("peak", MAP_AXES, heads, "float32", "mean of the row maximum"),
            self._array(
                "energy",
                (*MAP_AXES, ROLE),
                (*heads, roles),
                "float32",
                "sum over image tokens of the squared attention to the role",
            ),
            *self._region_arrays(basis),
            *(
                self._array(name, (SAMPLE,), (self.samples,), "bool", SCORES[name])
                for name in self.scores
            ),
            self._array(
                "thumbnail", (SAMPLE, "y", "x", "rgb"), picture, "uint8", "final image, sRGB"
            ),
            self._array(
                FLAGGED,
                (SAMPLE,),
                (self.samples,),
                "bool",
                "something of the sample was not finite; every float of it is NaN",
            ),
        )

    def _region_arrays(self, basis: int) -> tuple[ArraySpec, ...]:
        if not self.regions:
            return ()
        return (
            self._array(
                REGION_COEFFICIENTS,
                (SAMPLE, REGION, BASIS),
                (self.samples, len(self.regions), basis),
                "float32",
                "coefficients of the region in the final image; NaN where no objects were found",
            ),
        )

    def _array(
        self,
        name: str,
        dimensions: tuple[str, ...],
        shape: tuple[int, ...],
        dtype: str,
        long_name: str,
        *,
        units: str = "1",
        apart: tuple[str, ...] = (),
    ) -> ArraySpec:
        unit = (self.block, *shape[1:])
        chunk = tuple(
            1 if name in apart else size for name, size in zip(dimensions, unit, strict=True)
        )
        return ArraySpec(
            name=name,
            dimensions=dimensions,
            shape=shape,
            chunks=chunk,
            shards=unit if apart else None,
            dtype=dtype,
            attributes={"units": units, "long_name": long_name},
        )

    def index_coordinates(self) -> dict[str, tuple[str, NDArray[Any]]]:
        """Name to (dimension, values) of the coordinates that the sizes determine."""
        frequency = np.arange(self.order * self.order)
        return {
            SAMPLE: (SAMPLE, np.arange(self.samples)),
            STEP: (STEP, np.arange(self.steps)),
            BRANCH: (BRANCH, _strings(self.branches)),
            LAYER: (LAYER, np.arange(self.layers)),
            HEAD: (HEAD, np.arange(self.heads)),
            ROLE: (ROLE, _strings(self.roles)),
            **({REGION: (REGION, _strings(self.regions))} if self.regions else {}),
            BASIS: (BASIS, frequency),
            "ky": (BASIS, frequency // self.order),
            "kx": (BASIS, frequency % self.order),
        }

    def coordinates(self, given: Mapping[str, NDArray[Any]]) -> dict[str, tuple[str, NDArray[Any]]]:
        """Name to (dimension, values) of every coordinate: those of the sizes and those given.

        `given` holds the names of `COORDINATES`, those that are optional or not as it likes, and
        any further text per sample under a name of its own. It may repeat an index coordinate,
        such as `sample`, with the values it has anyway.

        Raises:
            ValueError: a name is missing or taken, or values do not fit.
        """
        complete = self.index_coordinates()
        known = {spec.name: spec for spec in COORDINATES}
        required = {spec.name for spec in COORDINATES if not spec.optional}
        if missing := sorted(required - given.keys()):
            raise ValueError(f"coordinates lack {', '.join(missing)}")
        for name in given.keys() & complete.keys():
            if not np.array_equal(given[name], complete[name][1]):
                raise ValueError(f"coordinate {name} contradicts the layout")
        taken = {spec.name for spec in self.arrays()} | {"y", "x", "rgb"}
        sizes = {SAMPLE: self.samples, STEP: self.steps}
        ordered = [*known, *sorted(given.keys() - known.keys())]
        for name in ordered:
            if name in complete or name not in given:
                continue
            if name in taken or not _NAME.fullmatch(name):
                raise ValueError(f"no coordinate can be called {name!r}")
            spec = known.get(name) or CoordinateSpec(
                name=name, dimension=SAMPLE, dtype="string", long_name="as the prompts say"
            )
            values = np.asarray(given[name])
            if values.shape != (sizes[spec.dimension],):
                raise ValueError(
                    f"coordinate {name} has shape {values.shape}, not ({sizes[spec.dimension]},)"
                )
            complete[name] = (spec.dimension, _column(spec, values))
        return complete

    def to_dict(self) -> dict[str, Any]:
        """The layout as JSON can hold it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """The layout that `to_dict` wrote.

        Raises:
            StoreError: the fields are not those of a layout.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or values.keys() != names:
            raise StoreError(
                f"the layout of a scan has {', '.join(sorted(names))}, not {short(values)}"
            )
        sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        for name, value in sizes.items():
            kind = _LISTS.get(name, int)
            whole = type(value) is tuple and all(type(each) is kind for each in value)
            if name == "canvas":
                whole = whole and len(value) == 2
            if not (whole if name in _LISTS else type(value) is int):
                raise StoreError(f"the layout of a scan has no {name} of {short(value)}")
        try:
            return cls(**sizes)
        except (ConfigError, ValueError) as error:
            raise StoreError(f"the layout of a scan is none: {error}") from error


def _strings(values: Sequence[str] | NDArray[Any]) -> NDArray[Any]:
    # Fixed-length unicode has no place in the Zarr v3 specification and warns.
    return np.asarray(values, dtype=np.dtypes.StringDType())


def _column(spec: CoordinateSpec, values: NDArray[Any]) -> NDArray[Any]:
    if spec.dtype == "string" and values.dtype.kind in "OTU":
        return _strings(values)
    if spec.dtype == "string" or not np.can_cast(values.dtype, spec.dtype, casting="same_kind"):
        raise ValueError(f"coordinate {spec.name} is {values.dtype}, not {spec.dtype}")
    return values.astype(spec.dtype)
