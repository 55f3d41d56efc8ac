"""Heads in order of a metric."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from attnsearch.api.ask import ask
from attnsearch.api.models import check_models
from attnsearch.api.rankings import Ranking
from attnsearch.api.scans import Scans
from attnsearch.errors import MetricError
from attnsearch.lookup import find_store
from attnsearch.metrics import FROM_WEIGHTS
from attnsearch.metrics.inference import DRAWS, Over
from attnsearch.scheduling import THREADS
from attnsearch.tables import Column, Table

if TYPE_CHECKING:
    from attnsearch.circuits import ScreenedHead
    from attnsearch.scanning import Reading


class WeightsRanking(Table["ScreenedHead"]):
    """Every head of some models by the size of its projection; see `ScreenedHead`."""

    @property
    def columns(self) -> "Sequence[Column[ScreenedHead]]":
        """See `Table`."""
        return [
            Column("rank", lambda row: str(row.rank)),
            Column("model", lambda row: row.model, words=True),
            Column("head", lambda row: str(row.address)),
            Column("cosine", lambda row: f"{row.cosine:+.3f}"),
            Column("projection", lambda row: f"{row.projection:+.2f}"),
            Column("energy", lambda row: f"{row.energy:.2f}"),
            Column("p", lambda row: f"{row.p_value:.2g}"),
            Column("q", lambda row: f"{row.q_value:.2g}"),
        ]


@overload
def rank(
    store: Any,
    metric: Literal["qk-relational"],
    *,
    reading: "Reading | None" = None,
) -> WeightsRanking: ...
@overload
def rank(
    store: Scans | None = None,
    metric: str = "relational",
    *,
    scan: str | None = None,
    over: Over = "mean",
    noise: tuple[float, float] | None = None,
    where: str | None = None,
    by: str | None = None,
    dask: str = THREADS,
    draws: int = DRAWS,
) -> Ranking: ...
def rank(
    store: Any = None,
    metric: str = "relational",
    *,
    scan: str | None = None,
    over: Over = "mean",
    noise: tuple[float, float] | None = None,
    where: str | None = None,
    by: str | None = None,
    dask: str = THREADS,
    draws: int = DRAWS,
    reading: "Reading | None" = None,
) -> Ranking | WeightsRanking:
    """Every head by a metric, best first.

    Metrics of `METRICS` read maps: `store` and the options are those of `ask`. `qk-relational`
    reads weights and samples nothing: `store` is then a checkpoint, its file, the folder of a
    pipeline, a packaged model by name, or a list of these; `reading` says of a PixArt .pth what the
    file does not.

    Raises:
        AttnsearchError: as of `ask`; a model cannot be read, or an option is for maps only.
    """
    if metric == FROM_WEIGHTS:
        told = (scan, noise, where, by)
        if any(each is not None for each in told) or over != "mean":
            raise MetricError(
                f"scan, noise, where, by and over are for maps; {metric} reads weights"
            )
        return _from_weights(store, reading)
    if isinstance(store, str | Path):
        store = _store(store, metric)
    return ask(
        store, metric, scan=scan, over=over, noise=noise, where=where, by=by, dask=dask, draws=draws
    )


def _store(named: Path | str, metric: str) -> Path | str:
    found = find_store(named)
    if Path(found).is_file():
        raise MetricError(
            f"{metric} needs a store of maps and {found} is a file; scan the checkpoint first, or "
            f"rank it by {FROM_WEIGHTS}"
        )
    return found


def _from_weights(models: Any, reading: "Reading | None") -> WeightsRanking:
    from attnsearch.circuits import screen, screening_of

    if models is None or isinstance(models, str | Path):
        models = [] if models is None else [models]
    if not isinstance(models, Sequence):
        rows = screen({"model": screening_of(models)})
        return WeightsRanking(rows, f"{FROM_WEIGHTS} heads")
    paths = check_models(models, reading)
    import torch

    from attnsearch import scanning
    from attnsearch.circuits import screening_of_pipeline
    from attnsearch.models.pipelines import load_pipeline

    told = reading or scanning.Reading()
    rows = screen(
        {
            name: screening_of_pipeline(load_pipeline(path, torch.device("cpu")))
            if path.is_dir()
            else screening_of(scanning.read_checkpoint(path, told))
            for name, path in paths.items()
        }
    )
    source = next(iter(paths)) if len(paths) == 1 else f"{len(paths)} checkpoints"
    return WeightsRanking(rows, f"{FROM_WEIGHTS} heads of {source}")
