"""`attnsearch similar`."""

from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import blocks_of, note_left_out, print_json, print_table
from attnsearch.cli.running import opened_aggregator
from attnsearch.errors import ConfigError, MetricError


def similar(
    store: options.Store,
    to: Annotated[str, typer.Option(help="The head to look for, as MODEL:L2H8.")] = "",
    like: Annotated[
        str,
        typer.Option(help='Or what it does: "relational, late", "shape1, from noise 0.9 to 0.5".'),
    ] = "",
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="Rows to print.")] = 20,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Only heads of other models; with --to.")
    ] = False,
    within: Annotated[
        list[str] | None,
        typer.Option(metavar="FACT=VALUE", help="Only such models: encoder=rtep, name=*-seed0."),
    ] = None,
    scheduler: options.Scheduler = "threads",
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
    from attnsearch.clustering import HeadIndex, signatures, standardised
    from attnsearch.clustering.profiles import Trait, profiles, sizes
    from attnsearch.clustering.selection import within as only
    from attnsearch.store import open_scans

    trait = Trait.parse(like) if like else None
    scans = only(open_scans(store, left_out=note_left_out), within or [])
    with opened_aggregator(scheduler) as aggregate:
        heads = signatures(scans, aggregate, options.beside(store))
    note_left_out(scans)
    models, names = heads["model"].values, [str(address) for address in heads["address"].values]
    if trait is None and to not in names:
        raise MetricError(f"no head {to!r}; heads are named as {names[0]} to {names[-1]}")
    asked = names.index(to) if trait is None else -1
    vectors = standardised(heads) if trait is None else sizes(profiles(heads))
    query = vectors[asked] if trait is None else trait.vector
    # Heads that are not asked for come back too: the one itself, or all of its model.
    hidden = int((models == models[asked]).sum()) if elsewhere else 1
    found, cosines = HeadIndex(vectors, options.beside(store)).nearest(query[None], top + hidden)
    rows = [
        {"head": names[other], "cosine": round(float(cosine), 6)}
        for other, cosine in zip(found[0], cosines[0], strict=True)
        if trait is not None
        or (other != asked and not (elsewhere and models[other] == models[asked]))
    ][:top]
    if as_json:
        of_head = {str(head): scans[str(model)] for head, model in zip(names, models, strict=True)}
        print_json([row | blocks_of([of_head[str(row["head"])]]) for row in rows])
        return
    cells = [[str(row["head"]), f"{row['cosine']:+.3f}"] for row in rows]
    print_table(["head", "cosine"], cells, title=f"heads like {trait or to}", words=["head"])
