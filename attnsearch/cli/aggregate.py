"""`attnsearch aggregate`."""

from typing import Annotated

import typer

from attnsearch.axes import Branch
from attnsearch.cli import options
from attnsearch.cli.console import print_json, show
from attnsearch.errors import ConfigError
from attnsearch.lookup import find_store
from attnsearch.progress import note


def aggregate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[STORE] WHAT",
            help="An array, roles (role+role), or a template (region -> role); before it the "
            "store, default: $ATTNSEARCH_STORE, or attnsearch.zarr here.",
        ),
    ],
    keep: Annotated[
        str | None,
        typer.Option(help="Axes that remain, by commas; default: all but sample and step."),
    ] = None,
    branch: Annotated[Branch, typer.Option(help="Which half of the guidance.")] = Branch.COND,
    quantiles: Annotated[
        str | None, typer.Option(help="Such as 0.1,0.5,0.9; of what has bounds.")
    ] = None,
    scan: options.Scan = None,
    top: options.Top = 20,
    output: options.OutputTable = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take as JSON; read nothing.")
    ] = False,
    dask: options.Dask = "threads",
    as_json: options.Json = False,
) -> None:
    """Count, mean, deviation, minimum and maximum of anything stored, over all maps.

    WHAT is an array of the store (entropy, peak, energy, score_shape ...), roles, of whose
    attention every coefficient of the basis is reduced, or a template, of which attention summed
    over the region (total) and per unit of region (share) are.

    Axes: step, layer, head, and what samples have: prompt, relation, colour1, seed ...; of roles
    also basis, of templates measure. Every axis that is not kept is reduced.

    Printed are the rows of the largest means; --json and -o have all rows. What was read once is
    kept in the store, and read again only where a scan has grown. Large stores: --dry-run first,
    then --dask.

    Example: attnsearch aggregate entropy --keep relation,layer,head

    Example: attnsearch aggregate maps.zarr relation --keep relation,step,layer,head,basis
    -o relation.parquet
    """
    named, quantity = options.store_and_question(words, "aggregate", "entropy")
    shares = _numbers(quantiles)
    store = find_store(named)
    from attnsearch.api import aggregate as api

    axes = None if keep is None else _names(keep)
    if dry_run:
        print_json(
            api.plan_aggregate(
                store, quantity, keep=axes, branch=branch, quantiles=shares, scan=scan
            )
        )
        return
    found = api.aggregate(
        store, quantity, keep=axes, branch=branch, quantiles=shares, scan=scan, dask=dask
    )
    if as_json:
        show(found, output=output or (), as_json=True)
        return
    for path in output or ():
        found.save(path)
        note(f"{len(found):,} rows in {path}")
    show(found.largest_first(), top=top)
    if len(found) > top:
        note(f"the {top} largest means of {len(found):,} rows; -o and --json have all")


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _numbers(text: str | None) -> list[float]:
    try:
        numbers = [float(part) for part in _names(text or "")]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number <= 1 for number in numbers):
        raise ConfigError(f"quantiles are numbers from 0 to 1 such as 0.1,0.5,0.9, not {text}")
    return numbers
