"""`attnsearch ask`."""

from typing import Annotated

import typer

from attnsearch.cli import heads, options
from attnsearch.cli.console import show
from attnsearch.lookup import find_store


def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[STORE] QUESTION",
            help="region -> role+role, a metric, or arithmetic on them; before it the store, "
            "default: $ATTNSEARCH_STORE, or attnsearch.zarr here.",
        ),
    ],
    top: options.Top = 10,
    scan: options.Scan = None,
    over: heads.Over = "mean",
    noise: heads.Noise = None,
    where: heads.Where = None,
    by: heads.By = None,
    output: options.Output = None,
    as_map: heads.Grid = False,
    dask: options.Dask = "threads",
    as_json: options.Json = False,
) -> None:
    """How much does a region of the image look at some words? One question over all heads.

    `region -> roles` is attention per unit of region, in [0, 1]; total(region -> roles) the plain
    sum, which grows with the object; contrast(region -> roles) less the mean of the other regions;
    mass(roles) the share of all attention. With + - * / ( ) abs() and metrics of `rank --list`
    they make new questions. A difference of two has a null: that the two are alike.

    Regions of the two-object task: object1, object2, background, as found in each finished image.
    Roles: colour1, shape1, relation, colour2, shape2, filler, end, pad. Scans of pipelines have the
    roles of their prompts, in quotation marks where they are no plain words, and regions where a
    segmenter was given in Python.

    Example: attnsearch ask "object1 -> relation"

    Example: attnsearch ask maps.zarr "object1 -> shape1 - object1 -> shape2" --by relation

    Example: attnsearch ask maps.zarr "contrast(object1 -> relation)" --noise 0.6:1.0
    --where "relation in [left, right] and colour1 == red"
    """
    named, question = options.store_and_question(words, "ask", "object1 -> relation")
    from attnsearch.metrics import parse

    parse(question)  # refused before a store is looked for
    store = find_store(named)
    from attnsearch.api.ask import ask as answer

    ranking = answer(
        store,
        question,
        scan=scan,
        over=heads.over_of(over),
        noise=heads.levels_of(noise),
        where=where,
        by=by,
        dask=dask,
    )
    if as_map:
        heads.print_grids(ranking.grids())
    show(ranking, top=top, output=output or (), as_json=as_json, silent=as_map)
