"""`attnsearch cluster`."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from attnsearch.cli import options
from attnsearch.cli.console import print_table, show
from attnsearch.errors import ConfigError

if TYPE_CHECKING:
    from attnsearch.api.cluster import Families

_SURE: Final = 0.05
"""Largest p-value of a family whose heads are listed by model."""
_COLUMNS: Final = 6


def _behaviours(number: str | None) -> str | None:
    if number is not None and number != "auto" and not number.isdecimal():
        raise ConfigError(f"--behaviours is a number or auto, not {number}")
    return number


def cluster(
    store: options.Store,
    within: options.Within = None,
    top: options.Top = 10,
    output: options.Output = None,
    behaviours: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Sort all heads into so many behaviours instead (k-means).",
            callback=_behaviours,
        ),
    ] = None,
    dask: options.Dask = "threads",
    as_json: options.Json = False,
) -> None:
    """Families of heads: heads of different models in a store that do the same.

    Two heads are a pair when each is the other's most similar in its model, and more similar than
    unrelated heads are; families are what pairs connect. p: chance that unrelated heads make a
    family in as many models; in the table of encoders: chance that so many of its models have that
    encoder. Scans that were made with `scan --control` are left out. Signatures of heads are kept
    in a folder beside the store, so that asking again is quick.

    Example: attnsearch cluster zoo.zarr

    Example: attnsearch cluster zoo.zarr --within encoder=rtep -o heads.png -o families.csv
    """
    from attnsearch.api import cluster as api

    if behaviours is not None:
        number = None if behaviours == "auto" else int(behaviours)
        table = api.behaviours(store, number, within=within or (), dask=dask)
        show(table, output=output or (), as_json=as_json)
        return
    families = api.cluster(store, within=within or (), dask=dask)
    if as_json or not families:
        show(families, top=top, output=output or (), as_json=as_json)
        return
    show(families, top=top, output=output or ())
    _print_members(families[:top])


def _print_members(families: "Families") -> None:
    if len(encoders := list(families[0].encoders)) > 1:
        print_table(
            ["family", *encoders],
            [
                [
                    str(row.family),
                    *(
                        f"{share.coverage} of {share.models}  p {share.p_value:.2g}"
                        for share in row.encoders.values()
                    ),
                ]
                for row in families
            ],
            title="models that have it, by encoder",
            words=[],
        )
    sure = [row for row in families if row.p_value < _SURE][:_COLUMNS]
    if sure:
        names = [f"family {row.family}" for row in sure]
        print_table(
            ["model", *names],
            [
                [model, *(" ".join(row.heads.get(model, ["-"])) for row in sure)]
                for model in sorted({model for row in sure for model in row.heads})
            ],
            title=f"heads of families with p below {_SURE}",
            words=["model", *names],
        )
