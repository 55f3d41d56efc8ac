"""Heads in order of a score: what `rank` and `ask` give."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from attnsearch.metrics import Control, RankedHead
from attnsearch.tables import Column, Table

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from attnsearch.api.scans import OpenedScans
    from attnsearch.axes import HeadAddress

_BARS: Final = "▁▂▃▄▅▆▇█"
_INDEX: Final = ("model", "group", "layer", "head")


class Ranking(Table[RankedHead]):
    """Every head of every scan by its score, best first; see `RankedHead` for the fields."""

    control: Control | None = None
    """What the heads of scans with random weights score; None without such scans."""
    _scans: "OpenedScans"

    @classmethod
    def of(
        cls,
        rows: Sequence[RankedHead],
        title: str,
        scans: "OpenedScans",
        control: Control | None,
    ) -> "Ranking":
        """The ranked heads of some scans, with what is to be said of them."""
        notes = []
        if rows and rows[0].p_value is None:
            notes.append("this score has no null distribution, so there are no p-values")
        if rows:
            sizes = sorted(abs(row.score) for row in rows)
            notes.append(f"median |score| of {len(sizes)} heads: {sizes[len(sizes) // 2]:.3f}")
        if control is not None:
            notes.append(
                f"random weights: median |score| {control.median:.3f}, largest "
                f"{control.largest:.3f} of {control.heads} heads"
            )
        ranking = cls(rows, title, [*notes, *scans.notes])
        ranking.control, ranking._scans = control, scans
        return ranking

    @property
    def columns(self) -> Sequence[Column[RankedHead]]:
        """See `Table`."""
        tested = bool(self) and self[0].p_value is not None
        plus = "+" if tested or any(row.score < 0 for row in self) else ""
        group = [Column[RankedHead]("group", lambda row: str(row.group), words=True)]
        tests = [
            Column[RankedHead]("p", lambda row: _p(row.p_value)),
            Column[RankedHead]("q", lambda row: _p(row.q_value)),
            Column[RankedHead]("family p", lambda row: _p(row.p_family)),
        ]
        return [
            Column("rank", lambda row: str(row.rank)),
            Column("model", lambda row: row.model, words=True),
            *(group if self._grouped else []),
            Column("head", lambda row: str(row.address)),
            Column("score", lambda row: f"{row.score:{plus}.3f}"),
            Column("95 % interval", lambda row: _interval(row.ci_low, row.ci_high, plus)),
            *(tests if tested else []),
            Column("peak step", lambda row: str(row.peak_step)),
            Column("over steps", lambda row: sparkline(row.profile), words=True),
            Column("prompts", lambda row: str(row.prompts)),
        ]

    def record(self, row: RankedHead) -> dict[str, Any]:
        """The fields of `RankedHead`, and the blocks of its scan: planned, and those read."""
        return asdict(row) | self._scans.blocks(row.model)

    def to_xarray(self) -> "xr.Dataset":
        """A variable for every field, along model, group (where there are groups), layer and head.

        NaN where a model has no such head. `profile` has a further dimension, `step`.
        """
        import numpy as np
        import xarray as xr

        index = [name for name in _INDEX if name != "group" or self._grouped]
        frame = self.to_pandas().drop(columns=["profile", *({"group"} - set(index))])
        dataset = frame.set_index(index).to_xarray()
        steps = max((len(row.profile) for row in self), default=0)
        places = {name: {v: n for n, v in enumerate(dataset[name].values)} for name in index}
        profile = np.full((*(dataset.sizes[name] for name in index), steps), np.nan)
        for row in self:
            at = tuple(places[name][getattr(row, name)] for name in index)
            profile[at][: len(row.profile)] = row.profile
        return dataset.assign(profile=xr.DataArray(profile, dims=(*index, "step")))

    def figure(self) -> "Figure":
        """Scores as layers by heads, a grid for every model and group."""
        from attnsearch.report import head_grid

        return head_grid.draw(self.grids(), self.title)

    def grids(self) -> "Mapping[str, Mapping[HeadAddress, float]]":
        """Scores by head, for every model and group by name."""
        grids: dict[str, dict[HeadAddress, float]] = {}
        for row in self:
            name = row.model if row.group is None else f"{row.model}, {row.group}"
            grids.setdefault(name, {})[row.address] = row.score
        return grids

    @property
    def _grouped(self) -> bool:
        return bool(self) and self[0].group is not None


def sparkline(values: Sequence[float]) -> str:
    """Sizes of values as bars, of which the highest is the largest."""
    largest = max(map(abs, values)) or 1.0
    return "".join(_BARS[round(abs(value) / largest * (len(_BARS) - 1))] for value in values)


def _interval(low: float | None, high: float | None, plus: str) -> str:
    return "" if low is None or high is None else f"{low:{plus}.3f} to {high:{plus}.3f}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
