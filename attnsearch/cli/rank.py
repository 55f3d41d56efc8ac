"""`attnsearch rank`."""

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from attnsearch.cli import heads, options
from attnsearch.cli.console import note, print_json, print_table
from attnsearch.errors import MetricError
from attnsearch.lookup import EXAMPLE_MODEL, find_model, find_store, is_pipeline, scan_name

if TYPE_CHECKING:
    from attnsearch.circuits import ScreenedHead
    from attnsearch.metrics import RankedHead
    from attnsearch.scanning import Reading

_FROM_WEIGHTS: Final = "qk-relational"


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
    output: heads.Output = None,
    as_map: heads.Grid = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Also write the best head's maps over the steps (PNG).", callback=options.writable
        ),
    ] = None,
    encoder: options.Encoder = None,
    encoder_source: options.EncoderSource = "",
    encoder_dtype: options.EncoderDtype = "float32",
    channel_heads: options.Heads = None,
    scheduler: options.Scheduler = "threads",
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

    Example: attnsearch rank maps.zarr --metric object --noise 0.0:0.7 --over peak

    Example: attnsearch rank rtep-femto-seed0 --metric qk-relational
    """
    if list_metrics:
        _print_metrics(as_json=as_json)
        return
    view = heads.view_of(over, noise, where, by)
    heads.check_output(output)
    if metric != _FROM_WEIGHTS:
        from attnsearch import metrics

        asked = metrics.parse(metric)
        store = _only_store(paths or [], metric)
        ranking, control, scans = heads.score_store(store, scan, asked, view, scheduler)
        if picture is not None:
            _draw(picture, store, ranking[0])
        heads.show(
            ranking,
            control,
            scans,
            title=f"{metric} heads of {options.store_name(store)}",
            view=view,
            top=top,
            output=output,
            as_map=as_map,
            as_json=as_json,
        )
        return
    of_stores = (scan, picture, noise, where, by, output)
    if any(each is not None for each in of_stores) or as_map:
        raise MetricError(
            f"--scan, --picture, --noise, --where, --by, --output and --map need a store; {metric} "
            "reads models"
        )
    if not paths:
        raise MetricError(
            f"{metric} reads models, name some: attnsearch rank {EXAMPLE_MODEL} --metric {metric}"
        )
    reading = options.reading_of(encoder, encoder_source, encoder_dtype, channel_heads)
    screened = _screen([find_model(path) for path in paths], reading)[:top]
    if as_json:
        print_json([asdict(row) for row in screened])
        return
    source = options.store_name(paths[0]) if len(paths) == 1 else f"{len(paths)} checkpoints"
    print_table(
        _SCREENED_COLUMNS,
        [_screened_cells(row) for row in screened],
        title=f"{metric} heads of {source}",
        words=["model"],
    )


def _print_metrics(*, as_json: bool) -> None:
    from attnsearch.metrics import METRICS

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
                for name, metric in METRICS.items()
            ]
        )
        return
    rows = [
        [name, f"{metric.low:g} to {metric.high:g} {metric.unit}".strip(), metric.summary]
        for name, metric in METRICS.items()
    ]
    rows.append([_FROM_WEIGHTS, "logits", "The relational question, put to the weights of models."])
    columns = ["metric", "range", "question"]
    print_table(columns, rows, title="metrics", words=columns)


def _only_store(paths: list[str], metric: str) -> str:
    if len(paths) > 1:
        raise MetricError(f"{metric} ranks the scans of one store, not {len(paths)} paths")
    store = str(find_store(*paths))
    if Path(store).is_file():
        raise MetricError(
            f"{metric} needs a store of maps and {store} is a file; "
            f"scan the checkpoint first, or take --metric {_FROM_WEIGHTS}"
        )
    return store


def _draw(picture: Path, store: str, best: "RankedHead") -> None:
    from attnsearch.report import head_maps
    from attnsearch.store import open_scan

    head_maps.write(picture, open_scan(store, best.model), best.address)
    note(f"maps of {best.address}: {picture}")


def _screen(paths: list[Path], reading: "Reading") -> "list[ScreenedHead]":
    names = [scan_name(path) for path in paths]
    for name, path in zip(names, paths, strict=True):
        if names.count(name) > 1:
            raise MetricError(f"several models are called {name}; rename one of them")
        if is_pipeline(path) and reading.encoder is not None:
            raise MetricError(f"{path} is a pipeline and brings its own text encoder")
        if path.is_dir() and not is_pipeline(path):
            raise MetricError(
                f"{_FROM_WEIGHTS} needs the weights of a model and {path} is a folder without; "
                "give the model that was scanned"
            )
    import torch

    from attnsearch import scanning
    from attnsearch.circuits import screen, screening_of, screening_of_pipeline
    from attnsearch.models.pipelines import load_pipeline

    return screen(
        {
            name: screening_of_pipeline(load_pipeline(path, torch.device("cpu")))
            if path.is_dir()
            else screening_of(scanning.read_checkpoint(path, reading))
            for name, path in zip(names, paths, strict=True)
        }
    )


_SCREENED_COLUMNS: Final = (
    "rank", "model", "head", "cosine", "projection", "energy", "p", "q",
)  # fmt: skip


def _screened_cells(row: "ScreenedHead") -> list[str]:
    return [
        str(row.rank),
        row.model,
        str(row.address),
        f"{row.cosine:+.3f}",
        f"{row.projection:+.2f}",
        f"{row.energy:.2f}",
        f"{row.p_value:.2g}",
        f"{row.q_value:.2g}",
    ]
