"""`attnsearch verify`."""

from dataclasses import asdict
from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import fail, print_json, print_table
from attnsearch.progress import note, progress


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
    from attnsearch import store as stores

    blocks = stores.count_blocks(store, scan)
    from attnsearch.api.scans import opened_runner

    with opened_runner(dask) as runner, progress("checking", blocks, "blocks") as advance:
        checks = stores.verify(store, scan, advance, runner)
    found = [(check.scan, finding) for check in checks for finding in check.findings]
    damaged = [finding for _, finding in found if finding.damage]
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(
            ["scan", "blocks", "of", "samples", "flagged", "findings"],
            [
                [
                    check.scan or "(store)",
                    str(check.committed),
                    str(check.blocks),
                    str(check.samples),
                    str(check.flagged),
                    str(len(check.findings)),
                ]
                for check in checks
            ],
            title=options.store_name(store),
            words=["scan"],
        )
        for name, finding in found:
            block = "metadata" if finding.block is None else f"block {finding.block}"
            note(f"{name or options.store_name(store)}, {block}: {finding.what}")
    if not repair:
        if damaged:
            fail(f"{store} is damaged: {len(damaged)} findings; --repair drops the damaged blocks")
            raise typer.Exit(2)
        if found:
            note("nothing is damaged; --repair writes the list anew")
        return
    if not found:
        return
    dropped = stores.repair(store, checks)
    if len(damaged) < len(found):
        note("the list of scans is written anew")
    if not damaged:
        return
    left = [check.scan for check in stores.verify(store, scan) if check.findings]
    note(f"{dropped} blocks dropped; the scans' own commands bring back what is missing")
    if left:
        fail(f"metadata of {', '.join(left)} are still damaged; scan again to restore them")
        raise typer.Exit(2)
