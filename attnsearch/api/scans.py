"""What a verb is told to read: a store, a scan, or several, opened or named."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

import xarray as xr

from attnsearch.aggregation import Aggregator
from attnsearch.errors import ConfigError
from attnsearch.lookup import find_store
from attnsearch.progress import note, progress
from attnsearch.scheduling import Runner, Scheduler
from attnsearch.store import Place, name_of, open_scans

Scans = Place | xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset]
"""A store's folder or URL, what `open_scan`, `open_scans` or `open_store` gives, or any datasets
of maps by name."""

UNNAMED: Final = "scan"
"""Name of a dataset that no store knows."""


class OpenedScans(dict[str, xr.Dataset]):
    """Scans by name, and what is to be said of them."""

    place: Path | str | None = None
    """The store they were read from, where one was named."""
    left_out: Sequence[str] = ()
    """News of scans that have no finished block yet."""

    @property
    def title(self) -> str:
        """What tables call them: the last part of the store's name, or that of the scans."""
        return ", ".join(self) if self.place is None else PurePosixPath(str(self.place)).name

    @property
    def notes(self) -> list[str]:
        """News of what is not in them: blocks not done yet, samples that are not finite."""
        return [*self.left_out, *incomplete(self)]

    def blocks(self, *names: str) -> dict[str, int]:
        """Blocks that some scans, or all, are to have and those that are done.

        Empty where a scan does not come from a store.
        """
        scans = [self[name] for name in names or self]
        if not all("blocks" in scan.attrs for scan in scans):
            return {}
        return {
            name: sum(int(scan.attrs[name]) for scan in scans) for name in ("blocks", "blocks_done")
        }


def opened_scans(given: Scans | None, name: str | None = None) -> OpenedScans:
    """The scans of what a verb was given, or the one that is named; by default the usual store's.

    Raises:
        ConfigError: one opened scan has no other name.
        StoreError: there is no such store or scan, or something of it is damaged.
    """
    if not (given is None or isinstance(given, str | Path)):
        opened = _by_name(given)
        if name is not None and name not in opened:
            raise ConfigError(f"there is no scan called {name!r}; there is {', '.join(opened)}")
        return OpenedScans(opened if name is None else {name: opened[name]})
    place = find_store(given)
    news: list[str] = []
    scans = OpenedScans(
        open_scans(place, name, left_out=lambda scans: news.extend(incomplete(scans)))
    )
    scans.place, scans.left_out = place, news
    return scans


def _by_name(
    given: xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset],
) -> Mapping[str, xr.Dataset]:
    # Datasets and trees are mappings too, of variables and of groups.
    if isinstance(given, xr.Dataset):
        return {name_of(given) or UNNAMED: given}
    if isinstance(given, xr.DataTree):
        return {str(name): node.to_dataset() for name, node in given.children.items()}
    return given


def incomplete(scans: Mapping[str, xr.Dataset]) -> list[str]:
    """News of scans of which blocks or samples are missing."""
    news = []
    for name, scan in scans.items():
        blocks, done = scan.attrs.get("blocks", 0), scan.attrs.get("blocks_done", 0)
        if done < blocks:
            news.append(f"{name}: {done} of {blocks} blocks; the scan is not complete")
        if flagged := scan.attrs.get("flagged_samples", 0):
            sampled = flagged + scan.sizes["sample"]
            news.append(f"{name}: {flagged} of {sampled} samples were not finite and are left out")
    return news


@contextmanager
def opened_runner(dask: str) -> Iterator[Runner]:
    """What runs tasks where `dask` says; tells where a cluster shows them.

    Raises:
        ConfigError: there is no such scheduler, or it does not answer.
    """
    with Scheduler.parse(dask).open() as runner:
        if runner.dashboard:
            note(f"tasks can be watched at {runner.dashboard}")
        yield runner


@contextmanager
def opened_aggregator(dask: str) -> Iterator[Aggregator]:
    """What reads scans where `dask` says, behind a bar; raises as `opened_runner` does."""
    with opened_runner(dask) as runner:
        yield Aggregator(
            runner=runner, watch=lambda pieces: progress("reading", pieces, "pieces", lasting=False)
        )
