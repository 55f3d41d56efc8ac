"""Write one scan into a store, block by block, so that a kill at any instant costs one block.

A scan appears with all its metadata and never changes shape. A block is written as one file of
each array, made to last, and only then recorded in the ledger. Several processes may write one
scan: each block is claimed by one of them. Opening an existing scan continues it, and puts right
what of its metadata was damaged. What the arrays are is the business of `schema`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from attnsearch.cleanup import on_error
from attnsearch.errors import StoreError
from attnsearch.store.creation import ensure_scan
from attnsearch.store.encoding import BlockCodec, Coordinates, encode_arrays
from attnsearch.store.groups import (
    METADATA_NAME,
    check_name,
    disk_errors,
    encode_scan_group,
    ensure_root,
    write_root,
)
from attnsearch.store.ledger import Ledger
from attnsearch.store.places import Place, storage_at
from attnsearch.store.presence import check_there, gone_first, store_is_gone
from attnsearch.store.schema import (
    COORDINATES_ATTRIBUTE,
    FLAGGED,
    LAYOUT_ATTRIBUTE,
    REGION_COEFFICIENTS,
    SCHEMA_ATTRIBUTE,
    SCHEMA_VERSION,
    ArraySpec,
    ScanLayout,
)
from attnsearch.store.storage import LOCK, PART, WRITING, Claim, Holder, Storage

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

ROOT_CLAIM: Final = "store"
"""The claim under which scans are created and the root is written."""


def block_claim(scan: str, block: int) -> str:
    """The name of the claim under which a block is written."""
    return f"{scan}{PART}{block}"


def ledger_claim(scan: str) -> str:
    """The name of the claim under which the records of a scan are packed or dropped."""
    return f"{scan}{PART}ledger"


def change_claim(scan: str) -> str:
    """The name of the claim under which a scan is removed or gets another name.

    Who changes a scan takes this claim and then looks for others of the scan; who writes it takes
    another and then looks for this one. So one of the two always sees the other.
    """
    return f"{scan}{PART}change"


class Turn(Enum):
    """What became of asking for a block."""

    OURS = "ours"
    """It is this writer's to write."""
    DONE = "done"
    """It exists."""
    TAKEN = "taken"
    """Another process is about to write it."""


class ScanWriter:
    """One writer of one scan. Everything committed is durable."""

    def __init__(self, storage: Storage, name: str, layout: ScanLayout, fingerprint: int) -> None:
        """`fingerprint` is of the fixed record of the scan."""
        self.layout = layout
        self.name = name
        self._storage = storage
        self._fingerprint = fingerprint
        self._ledger = Ledger(storage, name, layout, fingerprint)
        self._codec = BlockCodec(layout)
        self._claims: dict[int, Claim] = {}
        self._left: list[int] = []
        """Blocks that are written and whose claims could not be removed."""

    @classmethod
    def open(
        cls,
        store: Place,
        name: str,
        layout: ScanLayout,
        coordinates: Mapping[str, NDArray[Any]],
        attributes: Mapping[str, JSON],
        *,
        store_is_there: bool = False,
    ) -> Self:
        """A writer for scan `name` of `store`: a new one, or the same one continued.

        Creates the store if it is absent (its parent must exist), unless `store_is_there` says that
        it was made before. `coordinates` are for all samples, as `ScanLayout.coordinates` takes
        them.

        Raises:
            StoreError: `store` is something else or of another version, cannot be written, is
                damaged beyond what can be put right, or holds a scan of this name with another
                layout, coordinates or attributes.
            ValueError: coordinates or attributes do not have the form the layout asks for.
        """
        check_name(name)
        complete = layout.coordinates(coordinates)
        described = _group_attributes(layout, complete, attributes)
        files = encode_arrays(layout, complete)
        files[METADATA_NAME] = encode_scan_group(described, files)
        storage = storage_at(store)
        if store_is_there and storage.size(METADATA_NAME) is None:
            raise store_is_gone(storage)
        with disk_errors("write", store):
            with storage.waited_claim(ROOT_CLAIM) as claim:
                ensure_root(storage)
                write_root(storage, claim)  # first, so that a folder with files is known as ours
                fixed = ensure_scan(storage, claim, name, layout, files, complete, described)
                write_root(storage, claim)
            writer = cls(storage, name, layout, fixed.fingerprint)
            writer._check_files()
        return writer

    def committed(self) -> frozenset[int]:
        """The blocks that exist, whoever wrote them."""
        with disk_errors("read", self._where):
            return frozenset(self._ledger.read())

    def claim(self, block: int) -> Turn:
        """Ask for a block; if it is ours now, no other process will write it.

        Raises:
            StoreError: the store or the scan is gone, or the disk refuses.
        """
        turn, _ = self._claim(block)
        return turn

    def write_block(self, block: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write a block and commit it, claiming it first if it was not.

        `arrays` holds every array of the layout, restricted to the block's samples, in its dtype
        or a wider one of the same kind. When this returns the block survives a power cut, and is
        nobody's any more.

        Raises:
            StoreError: another process writes the block, the store or the scan is gone, or the
                disk refuses; then it stays this writer's until `release`, and can be written again.
            ValueError: the block exists, or names, shapes, dtypes or values are not the layout's.
        """
        checked = self._checked(block, arrays)
        turn, holder = self._claim(block)
        if turn is Turn.DONE:
            raise ValueError(f"block {block} is written already")
        if turn is Turn.TAKEN:
            raise StoreError(f"block {block} of {self._where} is being written by {holder}")
        claim = self._claims[block]
        files = self._codec.encode(block, checked)
        with self._writing():
            self._check_there()
            claim.write({f"{self.name}/{name}": data for name, data in files.items()})
            self._ledger.add(claim, block, files, np.flatnonzero(checked[FLAGGED]).tolist())
        try:
            self._let_go(block)
        except OSError:  # the block is written; the claim is in nobody's way
            self._left.append(block)

    def finalise(self) -> None:
        """If the scan is complete, pack its ledger and remove what killed writers left.

        Any number of times gives the same bytes.

        Raises:
            StoreError: the store or the scan is gone, or the disk refuses.
        """
        with self._writing():
            self._check_there()
            left = [block_claim(self.name, block) for block in self._left]
            if len(self._ledger.read()) == self.layout.blocks:
                with self._storage.waited_claim(ledger_claim(self.name)) as claim:
                    self._check_there()
                    self._ledger.pack(claim)
                # One that died while it opened this scan left the root claimed.
                left = [f"{self.name}{PART}", ROOT_CLAIM]
            for prefix in left:
                self._storage.sweep(prefix)
            self._left.clear()

    def release(self) -> None:
        """Let go of every block that was claimed and not written.

        Raises:
            StoreError: the disk refuses to forget a claim; all are let go of nevertheless.
        """
        with disk_errors("write", self._where), ExitStack() as each:
            for block in self._claims:
                each.callback(self._let_go, block)

    def _claim(self, block: int) -> tuple[Turn, Holder | None]:
        self.layout.block_slice(block)  # there is one
        if block in self._claims:
            return Turn.OURS, None
        with self._writing():
            if self._ledger.has(block):
                return Turn.DONE, None
            claim = self._storage.claim(block_claim(self.name, block))
            if isinstance(claim, Holder):
                return Turn.TAKEN, claim
            with on_error(claim.release):
                self._check_there()
                done = self._ledger.has(block)  # by who held it a moment ago
            if done:
                claim.release()
                return Turn.DONE, None
        self._claims[block] = claim
        return Turn.OURS, None

    def _let_go(self, block: int) -> None:
        self._claims.pop(block).release()

    def _checked(
        self, block: int, arrays: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[np.generic]]:
        specs = self.layout.arrays()
        if arrays.keys() != {spec.name for spec in specs}:
            different = sorted(arrays.keys() ^ {spec.name for spec in specs})
            raise ValueError(f"the arrays of a block are those of the layout: {different}")
        rows = self.layout.block_slice(block)
        flagged = np.asarray(arrays[FLAGGED], dtype=bool)
        return {
            spec.name: _checked(spec, arrays[spec.name], rows, flagged, block) for spec in specs
        }

    def _check_files(self) -> None:
        """Refuse to go on where a file of a block is absent or of another size."""
        for block, record in self._ledger.read().items():
            for name, mark in record.files.items():
                size = self._storage.size(f"{self.name}/{name}")
                if size != mark.size:
                    found = "is missing" if size is None else f"has {size} bytes, not {mark.size}"
                    raise StoreError(
                        f"block {block} of {self._where} is damaged: {name} {found}; "
                        f"`attnsearch verify {self._storage} --repair`, then scan again"
                    )

    def _check_there(self) -> None:
        """Refuse to write where the scan is no longer; who then writes has claimed a part of it."""
        change = change_claim(self.name)
        if self._storage.size(f"{WRITING}/{change}{LOCK}") is not None:
            # Whoever it is may yet see our claim and leave the scan alone.
            with self._storage.waited_claim(change):
                pass
        check_there(self._storage, self.name, self._fingerprint)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with (
            disk_errors("write", self._where),
            gone_first(self._storage, self.name, self._fingerprint),
        ):
            yield

    @property
    def _where(self) -> str:
        return f"{self._storage}/{self.name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.release()
            self.finalise()
            return
        with suppress(StoreError):  # what went wrong first is told
            self.release()


def _group_attributes(
    layout: ScanLayout, coordinates: Coordinates, attributes: Mapping[str, JSON]
) -> dict[str, Any]:
    # Xarray knows a variable that is called like its dimension for a coordinate by itself.
    named = [name for name, (dimension, _) in coordinates.items() if name != dimension]
    ours = {
        SCHEMA_ATTRIBUTE: SCHEMA_VERSION,
        LAYOUT_ATTRIBUTE: layout.to_dict(),
        COORDINATES_ATTRIBUTE: " ".join(sorted(named)),
    }
    if taken := sorted(attributes.keys() & ours.keys()):
        raise ValueError(f"the store itself writes the attributes {', '.join(taken)}")
    # Through JSON and back, so that they compare equal to what a file holds.
    given: dict[str, Any] = json.loads(json.dumps(dict(attributes), allow_nan=False))
    return given | ours


def _checked(
    spec: ArraySpec,
    values: NDArray[Any],
    rows: slice,
    flagged: NDArray[np.bool_],
    block: int,
) -> NDArray[np.generic]:
    """The values of an array as they are stored; floats of flagged samples are NaN."""
    shape = (rows.stop - rows.start, *spec.shape[1:])
    if values.shape != shape:
        raise ValueError(f"{spec.name} of block {block} has shape {values.shape}, not {shape}")
    if not np.can_cast(values.dtype, spec.dtype, casting="same_kind"):
        raise ValueError(f"{spec.name} of block {block} is {values.dtype}, not {spec.dtype}")
    with np.errstate(over="ignore"):
        stored = values.astype(spec.dtype, copy=bool(flagged.any()))
    if not spec.dtype.startswith("float"):
        return stored
    stored[flagged] = np.nan
    if spec.name != REGION_COEFFICIENTS and not np.isfinite(stored[~flagged]).all():
        raise ValueError(
            f"{spec.name} of block {block} is not finite in {spec.dtype} and not flagged"
        )
    return stored
