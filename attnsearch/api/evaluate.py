"""How often a model paints what it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from attnsearch.api.arguments import found_checkpoint
from attnsearch.progress import progress
from attnsearch.sampling import SamplerConfig
from attnsearch.tables import Column, Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from attnsearch.evaluation import Accuracy
    from attnsearch.models import Checkpoint
    from attnsearch.task.captions import Caption

_RELATION: Final = "relation_loose"
_SHOWN: Final = ("shape", "colour", "binding")
"""Measures that are shown of a wording, beside the relation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredAccuracy:
    """A share of the images of a split, with its Wilson 95 % interval, all in [0, 1].

    Value and ends are None where no caption of the split asks for what is measured.
    """

    split: str
    """`in_distribution`, or `held_out` where training never shows what is asked; captions without
    colours have splits of their own, such as `held_out_no_colour_1`."""
    measure: str
    """One of `evaluation.MEASURES`."""
    value: float | None
    low: float | None
    high: float | None
    count: int
    """Images scored."""


class Accuracies(Table[MeasuredAccuracy]):
    """Every measure of every split, and the images they are of."""

    images: "npt.NDArray[np.float32]"
    """[sample, y, x, rgb] in [0, 1]; those of a prompt follow each other, one for each seed."""
    captions: "Sequence[Caption]"
    """One for each image."""
    seeds: int
    """Images per prompt."""

    @property
    def columns(self) -> Sequence[Column[MeasuredAccuracy]]:
        """See `Table`."""
        return [
            Column("measure", lambda row: row.measure, words=True),
            Column("combinations", lambda row: _spelled(row.split), words=True),
            Column("accuracy", lambda row: _share(row.value)),
            Column("95 % interval", lambda row: _interval(row.low, row.high)),
            Column("images", lambda row: str(row.count)),
        ]

    def figure(self) -> "Figure":
        """The image of the first seed of every prompt, above its caption."""
        from attnsearch.report import contact_sheet

        return contact_sheet.draw(self.images[:: self.seeds], self.captions[:: self.seeds])


@dataclass(frozen=True, slots=True, kw_only=True)
class WordingAccuracies:
    """What a model makes of the prompt grid in other words."""

    wording: str
    images: int
    """Images painted."""
    accuracies: "dict[str, Accuracy]"
    """By measure; without those that no caption of the wording asks for."""


class Wordings(Table[WordingAccuracies]):
    """A row for every wording, first the one that training has."""

    @property
    def columns(self) -> Sequence[Column[WordingAccuracies]]:
        """See `Table`."""
        return [
            Column("wording", lambda row: row.wording, words=True),
            *(Column(name, partial(_shown, name)) for name in _SHOWN),
            Column("relation", partial(_shown, _RELATION)),
            Column(
                "95 % interval",
                lambda row: _interval(
                    row.accuracies[_RELATION].low, row.accuracies[_RELATION].high
                ),
            ),
            Column("images", lambda row: str(row.images)),
        ]

    def record(self, row: WordingAccuracies) -> dict[str, Any]:
        """Wording, images, and every measure with the ends of its interval.

        They are None where no caption of the wording asks for it.
        """
        from attnsearch.evaluation import MEASURES

        record: dict[str, Any] = {"wording": row.wording, "images": row.images}
        for measure in MEASURES:
            found = row.accuracies.get(measure)
            record[measure] = None if found is None else found.value
            record[f"{measure}_low"] = None if found is None else found.low
            record[f"{measure}_high"] = None if found is None else found.high
        return record


@overload
def evaluate(
    model: "Checkpoint | Path | str",
    *,
    seeds: int = 4,
    steps: int = 14,
    guidance: float = 4.5,
    wordings: Literal[False] = False,
    device: str = "auto",
) -> Accuracies: ...
@overload
def evaluate(
    model: "Checkpoint | Path | str",
    *,
    seeds: int = 4,
    steps: int = 14,
    guidance: float = 4.5,
    wordings: Literal[True],
    device: str = "auto",
) -> Wordings: ...
@overload
def evaluate(
    model: "Checkpoint | Path | str",
    *,
    seeds: int = 4,
    steps: int = 14,
    guidance: float = 4.5,
    wordings: bool,
    device: str = "auto",
) -> Accuracies | Wordings: ...
def evaluate(
    model: "Checkpoint | Path | str",
    *,
    seeds: int = 4,
    steps: int = 14,
    guidance: float = 4.5,
    wordings: bool = False,
    device: str = "auto",
) -> Accuracies | Wordings:
    """Paint the task's prompt grid and score every image; see `evaluation.evaluate`.

    `model` is a checkpoint, its file, or a packaged model by name; `seeds` are images per prompt.
    With `wordings` the grid comes in other words too, see `task.wordings`.

    Raises:
        CheckpointError: the model cannot be read.
        ConfigError: a number is out of range, there is no such device, or the model paints no
            images of its task.
    """
    sampler = SamplerConfig(steps=steps, guidance=guidance)
    found, name = found_checkpoint(model)
    from attnsearch import evaluation
    from attnsearch.devices import named_device
    from attnsearch.models import checkpoint_of
    from attnsearch.task.captions import exam_captions
    from attnsearch.task.wordings import wordings as all_wordings

    checkpoint, torch_device = checkpoint_of(found), named_device(device)
    how = f"{steps} steps, guidance {guidance:g}"
    if wordings:
        counts = {word: len(each) * seeds for word, each in all_wordings(checkpoint.task).items()}
        with progress("painting", sum(counts.values()), "images") as advance:
            by_wording = evaluation.robustness(
                checkpoint, seeds=seeds, sampler=sampler, device=torch_device, advance=advance
            )
        rows = [
            WordingAccuracies(wording=wording, images=counts[wording], accuracies=accuracies)
            for wording, accuracies in by_wording.items()
        ]
        return Wordings(rows, f"{name} in other words, {how}")
    with progress("painting", len(exam_captions(checkpoint.task)) * seeds, "images") as advance:
        result = evaluation.evaluate(
            checkpoint, seeds=seeds, sampler=sampler, device=torch_device, advance=advance
        )
    table = Accuracies(
        [
            _measured(split, measure, accuracies.get(measure))
            for split, accuracies in result.accuracies.items()
            for measure in evaluation.MEASURES
        ],
        f"{name}, {how}",
    )
    table.images, table.captions, table.seeds = result.images, result.captions, seeds
    return table


def _measured(split: str, measure: str, found: "Accuracy | None") -> MeasuredAccuracy:
    return MeasuredAccuracy(
        split=split,
        measure=measure,
        value=None if found is None else found.value,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        count=0 if found is None else found.count,
    )


def _spelled(split: str) -> str:
    return split.replace("_no_", ", no_").replace("_", " ")


def _shown(measure: str, row: WordingAccuracies) -> str:
    found = row.accuracies.get(measure)
    return _share(None if found is None else found.value)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "not asked" if low is None or high is None else f"{low:.3f} to {high:.3f}"
