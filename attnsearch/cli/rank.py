"""`attnsearch rank`."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnsearch.cli import heads, options
from attnsearch.cli.console import print_json, print_table, show
from attnsearch.errors import ConfigError, MetricError
from attnsearch.lookup import find_store
from attnsearch.progress import note

if TYPE_CHECKING:
    from attnsearch.scanning import Reading


def rank(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STORE|MODEL",
            help="A store written by scan, default: $ATTNSEARCH_STORE, or attnsearch.zarr "
            "here; for qk-relational one or more models.",
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What to rank by: a metric, or a question as of ask.")
    ] = "relational",
    list_metrics: Annotated[bool, typer.Option("--list", help="Print the metrics.")] = False,
    top: options.Top = 10,
    scan: options.Scan = None,
    over: heads.Over = "mean",
    noise: heads.Noise = None,
    where: heads.Where = None,
    by: heads.By = None,
    output: options.Output = None,
    as_map: heads.Grid = False,
    encoder: options.Encoder = None,
    encoder_source: options.EncoderSource = "",
    encoder_dtype: options.EncoderDtype = "float32",
    channel_heads: options.Heads = None,
    dask: options.Dask = "threads",
    as_json: options.Json = False,
) -> None:
    """Heads in order of a metric, with interval, p-value, and p adjusted for the number of heads.

    relational: does the map of the relation words move to where the asked relation puts object 1
    (positive) or object 2 (negative)? In [-1, 1]. `--list` has the others, docs/metrics.md their
    formulas. Intervals are over prompts; p compares with labels that mean nothing; q is p adjusted
    for the false discovery rate, family p for the chance of any false finding. Scans that were
    made with `scan --control` are not ranked, but what they score is said.

    qk-relational: the same question put to the weights of models, without sampling. The logits of
    position against relation words are compared with a ramp along the relation: cosine in [-1, 1]
    (shape), projection in logits (how much; ranks), energy in logits (in any direction). For
    checkpoints, PixArt .pth files (--encoder) and folders of PixArt pipelines.

    Example: attnsearch rank --metric relational --top 5

    Example: attnsearch rank maps.zarr --metric object --noise 0.0:0.7 --over peak -o heads.png

    Example: attnsearch rank rtep-femto-seed0 --metric qk-relational
    """
    from attnsearch.metrics import FROM_WEIGHTS, parse

    if list_metrics:
        _print_metrics(as_json=as_json)
        return
    if metric == FROM_WEIGHTS:
        of_maps = (scan, noise, where, by)
        if any(each is not None for each in of_maps) or as_map or over != "mean":
            raise MetricError(
                f"--scan, --noise, --where, --by, --over and --map need a store; {metric} reads "
                "models"
            )
        reading = options.reading_of(encoder, encoder_source, encoder_dtype, channel_heads)
        _rank_models(paths or [], reading, top, output or [], as_json=as_json)
        return
    parse(metric)  # refused before a store is looked for
    if len(paths or []) > 1:
        raise MetricError(f"{metric} ranks the scans of one store, not {len(paths or [])} paths")
    store = find_store(*(paths or []))
    from attnsearch.api.rank import rank as ranked

    ranking = ranked(
        store,
        metric,
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


def _rank_models(
    paths: list[str], reading: "Reading", top: int, output: list[Path], *, as_json: bool
) -> None:
    from attnsearch.api.models import check_models

    check_models(paths, reading)
    from attnsearch.api.rank import rank as ranked

    show(ranked(paths, "qk-relational", reading=reading), top=top, output=output, as_json=as_json)


def _print_metrics(*, as_json: bool) -> None:
    from attnsearch.metrics import METRICS

    known = {}
    for name in METRICS:
        try:
            known[name] = METRICS[name]
        except ConfigError as error:  # of another package, and broken
            note(str(error))
    if as_json:
        print_json(
            [
                {
                    "metric": name,
                    "summary": metric.summary,
                    "unit": metric.unit,
                    "low": metric.low if isfinite(metric.low) else None,
                    "high": metric.high if isfinite(metric.high) else None,
                }
                for name, metric in known.items()
            ]
        )
        return
    rows = [
        [name, f"{metric.low:g} to {metric.high:g} {metric.unit}".strip(), metric.summary]
        for name, metric in known.items()
    ]
    columns = ["metric", "range", "question"]
    print_table(columns, rows, title="metrics", words=columns)
