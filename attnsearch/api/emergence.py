"""How models came to paint relations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnsearch.errors import ConfigError
from attnsearch.lookup import find_model
from attnsearch.tables import Column, Table
from attnsearch.zoo.emergence import Snapshot, read_emergence

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedSnapshot:
    """A model at one step of its training."""

    model: str
    snapshot: Snapshot


class Emergence(Table[FollowedSnapshot]):
    """A row for every snapshot, by model and step."""

    @property
    def columns(self) -> Sequence[Column[FollowedSnapshot]]:
        """See `Table`."""
        return [
            Column("model", lambda row: row.model, words=True),
            Column("step", lambda row: f"{row.snapshot.step:,}"),
            Column("shape", lambda row: f"{row.snapshot.shape:.2f}"),
            Column("colour", lambda row: f"{row.snapshot.colour:.2f}"),
            Column("binding", lambda row: f"{row.snapshot.binding:.2f}"),
            Column("relation", lambda row: f"{row.snapshot.relation_loose:.2f}"),
            Column("head", lambda row: str(row.snapshot.head), words=True),
            Column("score", lambda row: f"{row.snapshot.score:+.3f}"),
            Column("q", lambda row: f"{row.snapshot.q_value:.2g}"),
        ]

    def record(self, row: FollowedSnapshot) -> dict[str, Any]:
        """The model, and the fields of `Snapshot` with the head as layer and head."""
        snapshot = row.snapshot
        return {
            "model": row.model,
            "step": snapshot.step,
            "shape": snapshot.shape,
            "colour": snapshot.colour,
            "binding": snapshot.binding,
            "relation_loose": snapshot.relation_loose,
            "layer": snapshot.head.layer,
            "head": snapshot.head.head,
            "score": snapshot.score,
            "q_value": snapshot.q_value,
        }

    def figure(self) -> "Figure":
        """Accuracies and the best head's score along training, a column for every model."""
        from attnsearch.report import emergence as curves

        return curves.draw(self.by_model())

    def by_model(self) -> Mapping[str, Sequence[Snapshot]]:
        """The snapshots of every model."""
        found: dict[str, list[Snapshot]] = {}
        for row in self:
            found.setdefault(row.model, []).append(row.snapshot)
        return found


def emergence(models: Path | str | Sequence[Path | str]) -> Emergence:
    """When models learned relations, and when their relational head appeared.

    `models` are published checkpoints, folders of `zoo train`, or packaged models by name, whose
    trainings were followed.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: a training was not followed, a record is damaged, or two models have one name.
    """
    paths = [find_model(each) for each in ([models] if isinstance(models, str | Path) else models)]
    names = [path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"several models are called {name}; rename one of them")
    rows = [
        FollowedSnapshot(model=path.stem, snapshot=snapshot)
        for path in paths
        for snapshot in read_emergence(path)
    ]
    return Emergence(rows, "emergence of relations")
