"""`attnsearch store`: remove scans of a store, or give them other names."""

from typing import Annotated

import typer

from attnsearch.errors import ConfigError
from attnsearch.lookup import find_store
from attnsearch.progress import note

store = typer.Typer(
    no_args_is_help=True,
    help="Remove a scan of a store, or give it another name.\n\n"
    "`publish` copies scans from one store into another, `info` and `verify` list them.",
)


@store.command()
def remove(
    words: Annotated[
        list[str], typer.Argument(metavar="[STORE] SCAN", help="A store, and a scan in it.")
    ],
) -> None:
    """Remove a scan and all its maps from a store.

    Refused while a process writes the scan. Stopped at any time, the store is whole, and the same
    command goes on if the scan is still there.

    Example: attnsearch store remove maps.zarr rtep-femto-seed0
    """
    place, scan = _store_and_names(words, "remove", "SCAN")
    from attnsearch import store as stores

    stores.remove(place, scan)
    note(f"scan {scan} of {place} is removed")


@store.command()
def rename(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[STORE] SCAN NEW", help="A store, a scan in it, and the name it gets."
        ),
    ],
) -> None:
    """Give a scan of a store another name; nothing else of it changes.

    Refused while a process writes the scan, and where the new name is taken. In a folder this is
    done at once; in an object store files are copied, and stopped meanwhile the scan is still there
    under its old name.

    Example: attnsearch store rename maps.zarr rtep-femto-seed0 baseline
    """
    place, scan, to = _store_and_names(words, "rename", "SCAN", "NEW")
    from attnsearch import store as stores

    stores.rename(place, scan, to)
    note(f"scan {scan} of {place} is called {to} now")


def _store_and_names(words: list[str], verb: str, *names: str) -> list[str]:
    """The store, the usual one where it is left out, and then the names.

    Raises:
        ConfigError: there are more words or fewer.
        StoreError: there is no such store.
    """
    if not 0 <= len(words) - len(names) <= 1:
        raise ConfigError(f"usage: attnsearch store {verb} [STORE] {' '.join(names)}")
    given = words[0] if len(words) > len(names) else None
    return [str(find_store(given)), *words[-len(names) :]]
