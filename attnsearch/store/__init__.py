"""Scans on disk: Zarr v3 stores that xarray opens without us.

`schema` says what a scan holds, `writer` writes it block by block, `reader` opens it lazily,
`verify` checks it, `management` removes it or gives it another name. Whatever is written passes
through `local`, so that it lasts.
"""

from attnsearch.store.coordinates import COORDINATES
from attnsearch.store.management import make_store, remove, rename
from attnsearch.store.places import Place
from attnsearch.store.publication import publish
from attnsearch.store.reader import (
    BLOCKS,
    BLOCKS_DONE,
    FLAGGED_SAMPLES,
    layout_of,
    name_of,
    open_scan,
    open_scans,
    open_store,
    scan_names,
)
from attnsearch.store.schema import (
    FLAGGED,
    MAX_SAMPLES,
    SCHEMA_VERSION,
    SCORES,
    ArraySpec,
    ScanLayout,
)
from attnsearch.store.verification import Finding, ScanCheck, count_blocks, repair, verify
from attnsearch.store.writer import ScanWriter, Turn

__all__ = [
    "BLOCKS",
    "BLOCKS_DONE",
    "COORDINATES",
    "FLAGGED",
    "FLAGGED_SAMPLES",
    "MAX_SAMPLES",
    "SCHEMA_VERSION",
    "SCORES",
    "ArraySpec",
    "Finding",
    "Place",
    "ScanCheck",
    "ScanLayout",
    "ScanWriter",
    "Turn",
    "count_blocks",
    "layout_of",
    "make_store",
    "name_of",
    "open_scan",
    "open_scans",
    "open_store",
    "publish",
    "remove",
    "rename",
    "repair",
    "scan_names",
    "verify",
]
