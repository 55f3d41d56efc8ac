"""`attnsearch verify`."""

from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import fail, show
from attnsearch.progress import note


def verify(
    store: options.Store,
    scan: options.Scan = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Drop damaged blocks, which the next scan redoes; list the scans anew.",
        ),
    ] = False,
    output: options.OutputTable = None,
    dask: options.Dask = "threads",
    as_json: options.Json = False,
) -> None:
    """Is a store what was written? Checks every byte, and that the numbers are of attention.

    Metadata and the files of every block are compared with the ledger's sizes and checksums; then
    attention to all roles must add up to one, entropies, peaks and energies must be possible, and
    nothing may be NaN but the samples that are flagged as such.

    Exit code 0 if nothing is damaged, or was repaired; 2 if something is. `--repair` drops what
    is damaged; scanning again, with the command that made the scan, brings it back.

    A scan that was removed or renamed with plain tools is no damage. The list of scans in the
    store's zarr.json, by which other programs find them, is then out of date; `--repair` mends it.

    Example: attnsearch verify maps.zarr --repair
    """
    from attnsearch.api.verify import verify as verified

    found = verified(store, scan=scan, repair=repair, dask=dask)
    show(found, output=output or (), as_json=as_json)
    findings = found.findings
    if not findings:
        return
    if not repair:
        if found.damaged:
            fail(f"{store} is damaged: {found.damaged} findings; --repair drops the damaged blocks")
            raise typer.Exit(2)
        note("nothing is damaged; --repair writes the list anew")
        return
    if found.damaged < len(findings):
        note("the list of scans is written anew")
    if not found.damaged:
        return
    note(f"{found.dropped} blocks dropped; the scans' own commands bring back what is missing")
    if found.unrepaired:
        fail(
            f"metadata of {', '.join(found.unrepaired)} are still damaged; scan again to restore "
            "them"
        )
        raise typer.Exit(2)
