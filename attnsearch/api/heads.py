"""Signatures of the heads of a store, kept beside it."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import xarray as xr

from attnsearch.api.scans import OpenedScans, Scans, opened_aggregator, opened_scans
from attnsearch.clustering import signatures
from attnsearch.clustering.selection import within as only


def compared_heads(
    given: Scans | None, within: Sequence[str], dask: str
) -> tuple[xr.Dataset, OpenedScans, Path | None]:
    """Signatures of the heads of some scans, the scans they are of, and the folder that keeps them.

    Controls are among the scans and have no signatures. The folder lies beside the store; None
    where there is none on this disk.
    """
    opened = opened_scans(given)
    scans = OpenedScans(only(opened, within))
    scans.place, scans.left_out = opened.place, opened.left_out
    saved = _beside(opened.place)
    with opened_aggregator(dask) as aggregate:
        heads = signatures(scans, aggregate, saved)
    return heads, scans, saved


def models_of(heads: xr.Dataset) -> list[str]:
    """The models of the heads, each once, in order."""
    return list(dict.fromkeys(map(str, heads["model"].to_numpy())))


def addresses_of(heads: xr.Dataset, members: Sequence[int] | None = None) -> list[str]:
    """Heads as MODEL:L2H8, by their rows; by default all."""
    chosen = heads["address"].to_numpy()
    return [str(address) for address in (chosen if members is None else chosen[list(members)])]


def _beside(place: Path | str | None) -> Path | None:
    if place is None or "://" in str(place):
        return None
    return Path(place).with_name(f"{PurePosixPath(str(place)).name}.signatures")
