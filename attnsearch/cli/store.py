"""`attnsearch store`: remove scans of a store, or give them other names."""

from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import note

store = typer.Typer(
    no_args_is_help=True,
    help="Remove a scan of a store, or give it another name.\n\n"
    "`publish` copies scans from one store into another, `info` and `verify` list them.",
)

Scan = Annotated[str, typer.Argument(metavar="SCAN", help="Name of a scan in it.")]


@store.command()
def remove(store: options.Store, scan: Scan) -> None:
    """Remove a scan and all its maps from a store.

    Refused while a process writes the scan. Stopped at any time, the store is whole, and the same
    command goes on if the scan is still there.

    Example: attnsearch store remove maps.zarr rtep-femto-seed0
    """
    from attnsearch import store as stores

    stores.remove(store, scan)
    note(f"scan {scan} of {store} is removed")


@store.command()
def rename(
    store: options.Store,
    scan: Scan,
    to: Annotated[str, typer.Argument(metavar="NEW", help="The name it gets.")],
) -> None:
    """Give a scan of a store another name; nothing else of it changes.

    Refused while a process writes the scan, and where the new name is taken. In a folder this is
    done at once; in an object store files are copied, and stopped meanwhile the scan is still there
    under its old name.

    Example: attnsearch store rename maps.zarr rtep-femto-seed0 baseline
    """
    from attnsearch import store as stores

    stores.rename(store, scan, to)
    note(f"scan {scan} of {store} is called {to} now")
