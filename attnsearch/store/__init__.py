"""Scans on disk: Zarr v3 stores that xarray opens without us.

`schema` says what a scan holds, `writer` writes it block by block, `reader` opens it lazily.
"""

from attnsearch.store.reader import layout_of, open_scan, open_scans, open_store, scan_names
from attnsearch.store.schema import (
    COORDINATES,
    SCHEMA_VERSION,
    SCORES,
    ArraySpec,
    ScanLayout,
)
from attnsearch.store.writer import ScanWriter

__all__ = [
    "COORDINATES",
    "SCHEMA_VERSION",
    "SCORES",
    "ArraySpec",
    "ScanLayout",
    "ScanWriter",
    "layout_of",
    "open_scan",
    "open_scans",
    "open_store",
    "scan_names",
]
