"""`attnsearch cluster`."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from attnsearch.cli import options
from attnsearch.cli.console import note, note_left_out, print_json, print_table
from attnsearch.cli.running import opened_aggregator

if TYPE_CHECKING:
    import xarray as xr

    from attnsearch.clustering import Families


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One family, as it is printed."""

    family: int
    coverage: int
    models: int
    cohesion: float
    p_value: float
    exemplar: str
    heads: dict[str, list[str]]


def cluster(
    store: options.Store,
    top: options.Top = 10,
    scheduler: options.Scheduler = "threads",
    as_json: options.Json = False,
) -> None:
    """Families of heads: heads of different models in a store that do the same.

    Two heads are a pair when each is the other's most similar in its model, and more similar than
    unrelated heads are; families are what pairs connect. p: chance that unrelated heads make a
    family in as many models. Scans that were made with `scan --control` are left out.

    Example: attnsearch cluster zoo.zarr
    """
    from attnsearch.clustering import find_families, signatures, standardised
    from attnsearch.store import open_scans

    scans = open_scans(store)
    with opened_aggregator(scheduler) as aggregate:
        heads = signatures(scans, aggregate)
    note_left_out(scans)
    families = find_families(standardised(heads), list(heads["model"].values))
    rows = _rows(families, heads)[:top]
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if not rows:
        note("no families: no heads of different models are more alike than unrelated heads")
        return
    print_table(
        ["family", "models", "cohesion", "p", "heads"],
        [
            [
                str(row.family),
                f"{row.coverage} of {row.models}",
                f"{row.cohesion:.2f}",
                f"{row.p_value:.3g}",
                "  ".join(f"{model} {','.join(own)}" for model, own in row.heads.items()),
            ]
            for row in rows
        ],
        title=f"families of {options.store_name(store)}",
        words=["heads"],
    )
    note(f"{len(families.families)} families; a pair has a cosine of {families.floor:.2f} or more")


def _rows(families: "Families", heads: "xr.Dataset") -> list[_Row]:
    addresses = [str(address).rpartition(":") for address in heads["address"].values]
    models = len({model for model, _, _ in addresses})
    rows = []
    for number, family in enumerate(families.families, start=1):
        members: dict[str, list[str]] = {}
        for member in family.members:
            model, _, head = addresses[member]
            members.setdefault(model, []).append(head)
        rows.append(
            _Row(
                family=number,
                coverage=family.coverage,
                models=models,
                cohesion=family.cohesion,
                p_value=family.p_value,
                exemplar="".join(addresses[family.exemplar]),
                heads=members,
            )
        )
    return rows
