"""`attnsearch maps`."""

from typing import Annotated

import typer

from attnsearch.axes import Branch
from attnsearch.cli import options
from attnsearch.cli.console import show
from attnsearch.lookup import find_store


def maps(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[STORE] HEAD",
            help="A head as MODEL:L2H8, or as L2H8 where the store holds one scan; before it the "
            "store, default: $ATTNSEARCH_STORE, or attnsearch.zarr here.",
        ),
    ],
    roles: Annotated[
        str, typer.Option(metavar="ROLE[+ROLE]", help="Words whose attention is shown.")
    ] = "relation",
    branch: Annotated[Branch, typer.Option(help="Which half of the guidance.")] = Branch.COND,
    output: options.Output = None,
    dask: options.Dask = "threads",
    as_json: options.Json = False,
) -> None:
    """What one head looks at: its mean attention to some words, by relation and step.

    The table has how much attention the words get, and its centre: x from -1 (left) to 1 (right),
    y from -1 (top) to 1 (bottom). -o maps.png draws the maps: a row for each relation, a column for
    each step.

    Example: attnsearch maps rtep-femto-seed0:L0H3 -o maps.png

    Example: attnsearch maps zoo.zarr rtep-femto-seed0:L1H2 --roles colour1+shape1
    """
    named, head = options.store_and_head(words)
    store = find_store(named)
    from attnsearch.api.maps import maps as mean_maps

    found = mean_maps(
        store,
        head,
        roles=[role.strip() for role in roles.split("+")],
        branch=branch,
        dask=dask,
    )
    show(found, output=output or (), as_json=as_json)
