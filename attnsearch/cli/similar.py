"""`attnsearch similar`."""

from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import show
from attnsearch.errors import ConfigError


def similar(
    store: options.Store,
    to: Annotated[
        str | None, typer.Option(metavar="HEAD", help="The head to look for, as MODEL:L2H8.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help='Or what it does: "relational, late", "shape1, from noise 0.9 to 0.5".'),
    ] = None,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Rows to print.")] = 20,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Only heads of other models; with --to.")
    ] = False,
    within: options.Within = None,
    output: options.OutputTable = None,
    dask: options.Dask = "threads",
    as_json: options.Json = False,
) -> None:
    """Heads of a store that are most like one of them, or like a description.

    To a head: cosine of signatures. To a description: cosine of profiles, what moves with the
    relation and who is attended to, at five noise levels. Needs FAISS: pip install
    "attnsearch[cpu]".

    Example: attnsearch similar zoo.zarr --to rtep-femto-seed0:L0H2 --elsewhere

    Example: attnsearch similar zoo.zarr --like "relational, reversed, late"
    """
    if bool(to) == bool(like):
        raise ConfigError("say either --to MODEL:L2H8 or --like what it does")
    from attnsearch.api.similar import similar as nearest

    found = nearest(
        store,
        to=to or None,
        like=like or None,
        top=top,
        elsewhere=elsewhere,
        within=within or (),
        dask=dask,
    )
    show(found, output=output or (), as_json=as_json)
