"""`attnsearch cluster`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from attnsearch.cli import options
from attnsearch.cli.console import blocks_of, note, note_left_out, print_json, print_table
from attnsearch.cli.running import opened_aggregator
from attnsearch.errors import ConfigError

if TYPE_CHECKING:
    import xarray as xr

    from attnsearch.clustering import Family
    from attnsearch.clustering.signatures import Floats

_SURE: Final = 0.05
"""Largest p-value of a family whose heads are listed by model."""
_COLUMNS: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One family, as it is printed."""

    family: int
    name: str
    coverage: int
    models: int
    encoders: dict[str, "_Share"]
    cohesion: float
    p_value: float
    exemplar: str
    heads: dict[str, list[str]]
    profile: dict[str, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """Models of one encoder that have a family."""

    coverage: int
    models: int
    p_value: float


def _behaviours(number: str | None) -> str | None:
    if number is not None and number != "auto" and not number.isdecimal():
        raise ConfigError(f"--behaviours is a number or auto, not {number}")
    return number


def cluster(
    store: options.Store,
    within: Annotated[
        list[str] | None,
        typer.Option(metavar="FACT=VALUE", help="Only such models: encoder=rtep, name=*-seed0."),
    ] = None,
    top: options.Top = 10,
    picture: Annotated[
        Path | None,
        typer.Option(help="Draw all heads on a plane (PNG, SVG, PDF).", callback=options.writable),
    ] = None,
    behaviours: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Sort all heads into so many behaviours instead (k-means).",
            callback=_behaviours,
        ),
    ] = None,
    scheduler: options.Scheduler = "threads",
    as_json: options.Json = False,
) -> None:
    """Families of heads: heads of different models in a store that do the same.

    Two heads are a pair when each is the other's most similar in its model, and more similar than
    unrelated heads are; families are what pairs connect. p: chance that unrelated heads make a
    family in as many models; in the table of encoders: chance that so many of its models have that
    encoder. Scans that were made with `scan --control` are left out. Signatures of heads are kept
    in a folder beside the store, so that asking again is quick.

    Example: attnsearch cluster zoo.zarr

    Example: attnsearch cluster zoo.zarr --within encoder=rtep --picture heads.png
    """
    from attnsearch.clustering import find_families, signatures, standardised
    from attnsearch.clustering.selection import facts
    from attnsearch.clustering.selection import within as only
    from attnsearch.store import open_scans

    scans = only(open_scans(store, left_out=note_left_out), within or [])
    with opened_aggregator(scheduler) as aggregate:
        heads = signatures(scans, aggregate, options.beside(store))
    note_left_out(scans)
    compared = [scans[model] for model in dict.fromkeys(map(str, heads["model"].values))]
    vectors = standardised(heads)
    if behaviours is not None:
        _print_behaviours(vectors, heads, behaviours, blocks_of(compared) if as_json else None)
        return
    families = find_families(vectors, list(heads["model"].values))
    encoders = {name: facts(name, scan).get("encoder", "?") for name, scan in scans.items()}
    rows = _rows(families, heads, encoders)
    if picture is not None:
        _draw(picture, vectors, heads, families, rows, encoders)
    rows = rows[:top]
    if as_json:
        print_json([asdict(row) | blocks_of(compared) for row in rows])
    elif not rows:
        note("no families: no heads of different models are more alike than unrelated heads")
    else:
        _print(rows, store, len(families))


def _print(rows: list[_Row], store: str, found: int) -> None:
    print_table(
        ["family", "what it does", "models", "cohesion", "p", "exemplar"],
        [
            [
                str(row.family),
                row.name,
                f"{row.coverage} of {row.models}",
                f"{row.cohesion:.2f}",
                f"{row.p_value:.3g}",
                row.exemplar,
            ]
            for row in rows
        ],
        title=f"families of {options.store_name(store)}",
        words=["what it does", "exemplar"],
    )
    if len(encoders := list(rows[0].encoders)) > 1:
        print_table(
            ["family", *encoders],
            [
                [
                    str(row.family),
                    *(f"{s.coverage} of {s.models}  p {s.p_value:.2g}" for s in shares),
                ]
                for row in rows
                for shares in [row.encoders.values()]
            ],
            title="models that have it, by encoder",
            words=[],
        )
    sure = [row for row in rows if row.p_value < _SURE][:_COLUMNS]
    if sure:
        print_table(
            ["model", *(f"family {row.family}" for row in sure)],
            [
                [model, *(" ".join(row.heads.get(model, ["-"])) for row in sure)]
                for model in sorted({model for row in sure for model in row.heads})
            ],
            title=f"heads of families with p below {_SURE}",
            words=["model", *(f"family {row.family}" for row in sure)],
        )
    note(f"{found} families")


def _rows(
    families: "Sequence[Family]", heads: "xr.Dataset", encoders: dict[str, str]
) -> list[_Row]:
    from attnsearch.clustering.profiles import best_name, profiles
    from attnsearch.clustering.selection import concentration

    profile = profiles(heads)
    owners = [str(model) for model in heads["model"].values]
    addresses = [str(address) for address in heads["address"].values]
    models = sorted(set(owners))
    kinds = {kind: [m for m in models if encoders[m] == kind] for kind in encoders.values()}
    kinds = {kind: kinds[kind] for kind in sorted(kinds) if kinds[kind]}
    rows = []
    for number, family in enumerate(families, start=1):
        members: dict[str, list[str]] = {}
        for member in family.members:
            members.setdefault(owners[member], []).append(addresses[member].rpartition(":")[2])
        mean = profile.values[list(family.members)].mean(axis=0)
        shares = {}
        for kind, own in kinds.items():
            covered = sum(model in members for model in own)
            chance = concentration(family.coverage, covered, len(own), len(models))
            shares[kind] = _Share(coverage=covered, models=len(own), p_value=chance)
        rows.append(
            _Row(
                family=number,
                name=str(best_name(mean) or "nothing that has a name"),
                coverage=family.coverage,
                models=len(models),
                encoders=shares,
                cohesion=family.cohesion,
                p_value=family.p_value,
                exemplar=addresses[family.exemplar],
                heads=members,
                profile=dict(zip(profile["trait"].values, mean.round(4).tolist(), strict=True)),
            )
        )
    return rows


def _draw(
    path: Path,
    vectors: "Floats",
    heads: "xr.Dataset",
    families: "Sequence[Family]",
    rows: list[_Row],
    encoders: dict[str, str],
) -> None:
    from attnsearch.clustering.landscape import landscape
    from attnsearch.report import landscape as sheet

    named = [
        (f"{row.family}: {row.name}", family.members)
        for row, family in zip(rows, families, strict=True)
    ]
    kinds = [encoders[str(model)] for model in heads["model"].values]
    sheet.write(path, landscape(vectors, heads), named, kinds)
    note(f"all heads: {path}")


def _print_behaviours(
    vectors: "Floats", heads: "xr.Dataset", number: str, json_blocks: dict[str, int] | None
) -> None:
    """A table; JSON where it is told the blocks of the scans."""
    import numpy as np

    from attnsearch.clustering import find_behaviours
    from attnsearch.clustering.profiles import best_name, profiles

    found = find_behaviours(vectors, None if number == "auto" else int(number))
    profile, models = profiles(heads).values, heads["model"].values
    rows = []
    for label in range(int(found.label.max()) + 1):
        members = np.flatnonzero(found.label == label)
        if not len(members):
            continue
        centre = vectors[members].mean(axis=0)
        rows.append(
            {
                "behaviour": label + 1,
                "name": str(best_name(profile[members].mean(axis=0)) or "-"),
                "heads": len(members),
                "models": len(np.unique(models[members])),
                "agreement": round(float(found.agreement[members].mean()), 4),
                "exemplar": str(
                    heads["address"].values[members[(vectors[members] @ centre).argmax()]]
                ),
                "members": [str(address) for address in heads["address"].values[members]],
            }
        )
    if json_blocks is not None:
        stability = {str(k): round(value, 4) for k, value in found.stability.items()}
        print_json({"behaviours": rows, "stability": stability} | json_blocks)
        return
    columns = ["behaviour", "name", "heads", "models", "agreement", "exemplar"]
    print_table(
        columns,
        [
            [
                f"{row[column]:.2f}" if column == "agreement" else str(row[column])
                for column in columns
            ]
            for row in rows
        ],
        title="behaviours",
        words=["name", "exemplar"],
    )
    tried = ", ".join(f"{k}: {value:.2f}" for k, value in found.stability.items())
    note(f"agreement: share of k-means seeds; stability by number of behaviours: {tried}")
