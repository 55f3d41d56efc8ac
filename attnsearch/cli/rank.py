"""`attnsearch rank`."""

from dataclasses import asdict
from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import print_json, print_table


def rank(
    store: options.Store,
    metric: Annotated[str, typer.Option(help="What to rank by.")] = "relational",
    top: options.Top = 10,
    scan: options.Scan = None,
    as_json: options.Json = False,
) -> None:
    """Heads in order of a metric, with interval, p-value and q-value.

    relational: does the map of the relation words move to where the asked relation puts object 1
    (positive) or object 2 (negative)? In [-1, 1]; the interval is a bootstrap over prompts, the
    p-value compares with relation words of random meaning, q is p adjusted for the number of heads.

    Example: attnsearch rank maps.zarr --metric relational --top 5
    """
    from attnsearch import metrics
    from attnsearch.store import open_scans

    ranking = metrics.rank(open_scans(store, scan), metric)[:top]
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
    )
