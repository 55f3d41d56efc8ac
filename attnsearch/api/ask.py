"""One question over all heads."""

from typing import Final

from attnsearch import metrics
from attnsearch.api.rankings import Ranking
from attnsearch.api.scans import Scans, opened_aggregator, opened_scans
from attnsearch.errors import MetricError
from attnsearch.metrics import METRICS, Question, View
from attnsearch.metrics.inference import DRAWS, Over
from attnsearch.scheduling import THREADS

_OVER: Final = ("mean", "peak")


def ask(
    store: Scans | None = None,
    question: str | Question = "relational",
    *,
    scan: str | None = None,
    over: Over = "mean",
    noise: tuple[float, float] | None = None,
    where: str | None = None,
    by: str | None = None,
    dask: str = THREADS,
    draws: int = DRAWS,
) -> Ranking:
    """Every head of every scan by what a question says of it, best first.

    `store` is a store's folder or URL, or scans that are opened already; by default the usual
    store. A question is a template `region -> role`, a metric, or arithmetic on these. `over`,
    `noise`, `where` and `by` are those of `View`; `dask` says where scans are read: `threads`,
    `processes`, or the address of a Dask scheduler. `draws` are of the null distribution. Scans of
    random weights (`scan(control=True)`) are not ranked; `Ranking.control` says what they score.

    Raises:
        MetricError: the question or the view is wrong, or a scan lacks what it needs.
        StoreError: there is no such store, or something of it is damaged.
    """
    asked = metrics.parse(question) if isinstance(question, str) else question
    if over not in _OVER:
        raise MetricError(f"over is mean or peak, not {over!r}")
    view = View(over=over, noise=noise, where=where, by=by)
    scans = opened_scans(store, scan)
    with opened_aggregator(dask) as aggregate:
        rows = metrics.rank(scans, asked, aggregate, view, draws)
        control = metrics.control(scans, asked, aggregate, view)
    asks = f"{question} heads of" if question in METRICS else f"{question} in"
    return Ranking.of(rows, f"{asks} {scans.title}, {view}", scans, control)
