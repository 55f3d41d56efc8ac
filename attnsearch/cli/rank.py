"""`attnsearch rank`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from attnsearch.cli import options
from attnsearch.cli.console import note, note_left_out, print_json, print_table
from attnsearch.cli.running import opened_aggregator
from attnsearch.errors import MetricError

if TYPE_CHECKING:
    from attnsearch.circuits import ScreenedHead
    from attnsearch.metrics import RankedHead

_FROM_WEIGHTS: Final = "qk-relational"


def rank(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE|MODEL",
            help="A store written by scan; for qk-relational one or more models.",
        ),
    ],
    metric: Annotated[
        str, typer.Option(help="What to rank by: relational or qk-relational.")
    ] = "relational",
    top: options.Top = 10,
    scan: options.Scan = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also write the best head's maps over the steps (PNG).")
    ] = None,
    encoder: options.Encoder = None,
    encoder_source: options.EncoderSource = "",
    encoder_dtype: options.EncoderDtype = "float32",
    heads: options.Heads = None,
    scheduler: options.Scheduler = "threads",
    as_json: options.Json = False,
) -> None:
    """Heads in order of a metric, with p-value and q-value.

    relational: does the map of the relation words move to where the asked relation puts object 1
    (positive) or object 2 (negative)? In [-1, 1]; the interval is a bootstrap over prompts, the
    p-value compares with relation words of random meaning, q is p adjusted for the number of heads.

    qk-relational: the same question put to the weights of models, without sampling. The logits of
    position against relation words are compared with a ramp along the relation: cosine in [-1, 1]
    (shape), projection in logits (how much; ranks), energy in logits (in any direction). For
    checkpoints, PixArt .pth files (--encoder) and folders of PixArt pipelines.

    Example: attnsearch rank maps.zarr --metric relational --top 5

    Example: attnsearch rank model.pt --metric qk-relational
    """
    from attnsearch import metrics

    known = sorted([*metrics.METRICS, _FROM_WEIGHTS])
    if metric not in known:
        raise MetricError(f"unknown metric {metric!r}; known: {', '.join(known)}")
    ranking: Sequence[RankedHead | ScreenedHead]
    if metric == _FROM_WEIGHTS:
        if scan is not None or picture is not None:
            raise MetricError(f"--scan and --picture need a store; {metric} reads models")
        reading = (encoder, encoder_source, encoder_dtype, heads)
        ranking = screened = _screen([Path(path) for path in paths], *reading)[:top]
        columns, cells = _SCREENED_COLUMNS, [_screened_cells(row) for row in screened]
    else:
        ranking = ranked = _rank_store(paths, metric, scan, picture, scheduler)[:top]
        columns, cells = _RANKED_COLUMNS, [_ranked_cells(row) for row in ranked]
    if as_json:
        print_json([asdict(row) for row in ranking])
        return
    source = options.store_name(paths[0]) if len(paths) == 1 else f"{len(paths)} checkpoints"
    print_table(columns, cells, title=f"{metric} heads of {source}", words=["model"])


def _rank_store(
    paths: list[str], metric: str, scan: str | None, picture: Path | None, scheduler: str
) -> "list[RankedHead]":
    from attnsearch import metrics
    from attnsearch.report import head_maps
    from attnsearch.store import open_scans

    store, *others = paths
    if others:
        raise MetricError(f"{metric} ranks the scans of one store, not {len(paths)} paths")
    if Path(store).is_file():
        raise MetricError(
            f"{metric} needs a store of maps and {store} is a file; "
            f"scan the checkpoint first, or take --metric {_FROM_WEIGHTS}"
        )
    scans = open_scans(store, scan)
    with opened_aggregator(scheduler) as aggregate:
        ranking = metrics.rank(scans, metric, aggregate)
    note_left_out(scans)
    if picture is not None:
        head_maps.write(picture, scans[ranking[0].model], ranking[0].address)
        note(f"maps of {ranking[0].address}: {picture}")
    return ranking


def _screen(
    paths: list[Path],
    encoder: options.TextEncoder | None,
    encoder_source: str,
    encoder_dtype: str,
    heads: int | None,
) -> "list[ScreenedHead]":
    import torch

    from attnsearch import scanning
    from attnsearch.circuits import screen, screening_of, screening_of_pipeline
    from attnsearch.encoders import EncoderKind
    from attnsearch.models.pipelines import is_pipeline, load_pipeline

    reading = scanning.Reading(
        encoder=None if encoder is None else EncoderKind(encoder),
        encoder_source=encoder_source,
        encoder_dtype=encoder_dtype,
        heads=heads,
    )
    names = [scanning.scan_name(path) for path in paths]
    for name, path in zip(names, paths, strict=True):
        if names.count(name) > 1:
            raise MetricError(f"several models are called {name}; rename one of them")
        if is_pipeline(path) and encoder is not None:
            raise MetricError(f"{path} is a pipeline and brings its own text encoder")
        if path.is_dir() and not is_pipeline(path):
            raise MetricError(
                f"{_FROM_WEIGHTS} needs the weights of a model and {path} is a folder without; "
                "give the model that was scanned"
            )
    return screen(
        {
            name: screening_of_pipeline(load_pipeline(path, torch.device("cpu")))
            if path.is_dir()
            else screening_of(scanning.read_checkpoint(path, reading))
            for name, path in zip(names, paths, strict=True)
        }
    )


_RANKED_COLUMNS: Final = (
    "rank", "model", "head", "score", "95 % interval", "p", "q", "peak step",
)  # fmt: skip


def _ranked_cells(row: "RankedHead") -> list[str]:
    return [
        str(row.rank),
        row.model,
        str(row.address),
        f"{row.score:+.3f}",
        f"{row.ci_low:+.3f} to {row.ci_high:+.3f}",
        f"{row.p_value:.2g}",
        f"{row.q_value:.2g}",
        str(row.peak_step),
    ]


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
