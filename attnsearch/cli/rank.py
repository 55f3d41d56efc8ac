"""`attnsearch rank`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import note, print_json, print_table


def rank(
    store: options.Store,
    metric: Annotated[str, typer.Option(help="What to rank by.")] = "relational",
    top: options.Top = 10,
    scan: options.Scan = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also write the best head's maps over the steps (PNG).")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Heads in order of a metric, with interval, p-value and q-value.

    relational: does the map of the relation words move to where the asked relation puts object 1
    (positive) or object 2 (negative)? In [-1, 1]; the interval is a bootstrap over prompts, the
    p-value compares with relation words of random meaning, q is p adjusted for the number of heads.

    Example: attnsearch rank maps.zarr --metric relational --top 5
    """
    from attnsearch import metrics
    from attnsearch.report import head_maps
    from attnsearch.store import open_scans

    scans = open_scans(store, scan)
    ranking = metrics.rank(scans, metric)[:top]
    if picture is not None:
        head_maps.write(picture, scans[ranking[0].model], ranking[0].address)
        note(f"maps of {ranking[0].address}: {picture}")
    if as_json:
        print_json([asdict(row) for row in ranking])
        return
    print_table(
        ["rank", "model", "head", "score", "95 % interval", "p", "q", "peak step"],
        [
            [
                str(row.rank),
                row.model,
                str(row.address),
                f"{row.score:+.3f}",
                f"{row.ci_low:+.3f} to {row.ci_high:+.3f}",
                f"{row.p_value:.2g}",
                f"{row.q_value:.2g}",
                str(row.peak_step),
            ]
            for row in ranking
        ],
        title=f"{metric} heads of {store.name}",
        words=["model"],
    )
