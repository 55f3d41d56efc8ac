"""`attnsearch similar`."""

from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import note_left_out, print_json, print_table
from attnsearch.cli.running import opened_aggregator
from attnsearch.errors import MetricError


def similar(
    store: options.Store,
    to: Annotated[str, typer.Option(help="The head to look for, as MODEL:L2H8.")],
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Rows to print.")] = 20,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Only heads of other models.")
    ] = False,
    scheduler: options.Scheduler = "threads",
    as_json: options.Json = False,
) -> None:
    """Heads of a store that are most like one of them, by the cosine of their signatures.

    Example: attnsearch similar zoo.zarr --to rtep-femto-seed0:L0H2 --elsewhere
    """
    import numpy as np

    from attnsearch.clustering import signatures, standardised
    from attnsearch.store import open_scans

    scans = open_scans(store)
    with opened_aggregator(scheduler) as aggregate:
        heads = signatures(scans, aggregate)
    note_left_out(scans)
    models, names = heads["model"].values, [str(address) for address in heads["address"].values]
    if to not in names:
        raise MetricError(f"no head {to!r}; heads are named as {names[0]} to {names[-1]}")
    asked = names.index(to)
    vectors = standardised(heads)
    cosines = vectors @ vectors[asked]
    rows = [
        {"head": names[other], "cosine": round(float(cosines[other]), 6)}
        for other in np.argsort(-cosines, kind="stable")
        if other != asked and not (elsewhere and models[other] == models[asked])
    ][:top]
    if as_json:
        print_json(rows)
        return
    cells = [[str(row["head"]), f"{row['cosine']:+.3f}"] for row in rows]
    print_table(["head", "cosine"], cells, title=f"heads like {to}", words=["head"])
