"""`attnsearch ask`."""

from dataclasses import asdict
from typing import Annotated

import typer

from attnsearch.axes import HeadAddress
from attnsearch.cli import options
from attnsearch.cli.console import note_left_out, print_json, print_table
from attnsearch.cli.running import opened_aggregator


def ask(
    store: options.Store,
    template: Annotated[
        str, typer.Argument(metavar="TEMPLATE", help="region -> role, or region -> role+role.")
    ],
    top: options.Top = 10,
    scan: options.Scan = None,
    scheduler: options.Scheduler = "threads",
    as_json: options.Json = False,
) -> None:
    """How much does a region of the image look at some words? One template over all heads.

    Regions of the two-object task: object1, object2, background, as found in each finished image.
    Roles: colour1, shape1, relation, colour2, shape2, filler, end, pad. Scans of pipelines have the
    roles of their prompts, and regions where a segmenter was given in Python. `share` is attention
    per unit of region, `total` the plain sum, which grows with the object.

    Example: attnsearch ask maps.zarr "object1 -> relation"
    """
    from attnsearch import metrics
    from attnsearch.store import open_scans

    question = metrics.Template.parse(template)
    scans = open_scans(store, scan)
    with opened_aggregator(scheduler) as aggregate:
        answers = metrics.ask(scans, question, aggregate)[:top]
    note_left_out(scans)
    if as_json:
        print_json([asdict(answer) for answer in answers])
        return
    print_table(
        ["rank", "model", "head", "share", "95 % interval", "total", "peak step", "images"],
        [
            [
                str(answer.rank),
                answer.model,
                str(HeadAddress(answer.layer, answer.head)),
                f"{answer.share:.3f}",
                f"{answer.ci_low:.3f} to {answer.ci_high:.3f}",
                f"{answer.total:.2f}",
                str(answer.peak_step),
                str(answer.samples),
            ]
            for answer in answers
        ],
        title=f"{question} in {options.store_name(store)}",
        words=["model"],
    )
