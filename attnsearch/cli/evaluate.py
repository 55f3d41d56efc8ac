"""`attnsearch evaluate`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import print_json, print_table
from attnsearch.errors import ConfigError
from attnsearch.progress import note, progress

if TYPE_CHECKING:
    from attnsearch.evaluation import Accuracy
    from attnsearch.models import Checkpoint


def evaluate(
    checkpoint: options.Checkpoint,
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Also write a contact sheet of the first seed (PNG).", callback=options.writable
        ),
    ] = None,
    wordings: Annotated[
        bool,
        typer.Option("--wordings", help="In other words instead: the, is, order, phrase, colours."),
    ] = False,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """How often does a model paint what it is asked: shape, colour, binding, relation.

    Paints the task's whole prompt grid, and tells combinations it was trained on from those held
    out. Intervals are Wilson 95 %. If the training left out colours, the grid comes again without
    colour 1, without colour 2 and without both, on rows of their own. An object whose colour is
    not named may have any. Without both colours two combinations have one text, which is painted
    once, and is held out if both are.

    --wordings: the grid with a word more or less, in another order, with other phrases for the
    relation, and without colours, whether or not the training left them out.

    Example: attnsearch evaluate model.pt --seeds 8 --sheet images.png

    Example: attnsearch evaluate model.pt --wordings
    """
    if wordings and sheet is not None:
        raise ConfigError("--sheet shows the prompt grid as trained; leave out --wordings")
    from attnsearch import evaluation
    from attnsearch.devices import named_device
    from attnsearch.models import load_checkpoint
    from attnsearch.report import contact_sheet
    from attnsearch.sampling import SamplerConfig
    from attnsearch.task.captions import exam_captions

    loaded = load_checkpoint(checkpoint)
    if wordings:
        _wordings(loaded, checkpoint.name, seeds, steps, guidance, device, as_json=as_json)
        return
    images = len(exam_captions(loaded.task)) * seeds
    with progress("painting", images, "images") as advance:
        result = evaluation.evaluate(
            loaded,
            seeds=seeds,
            sampler=SamplerConfig(steps=steps, guidance=guidance),
            device=named_device(device),
            advance=advance,
        )
    if sheet is not None:
        contact_sheet.write(sheet, result.images[::seeds], result.captions[::seeds])
        note(f"contact sheet: {sheet}")
    if as_json:
        print_json(result.table())
        return
    print_table(
        ["measure", "combinations", "accuracy", "95 % interval", "images"],
        [
            [name, split.replace("_no_", ", no_").replace("_", " "), *_cells(accuracies.get(name))]
            for split, accuracies in result.accuracies.items()
            for name in evaluation.MEASURES
        ],
        title=f"{checkpoint.name}, {steps} steps, guidance {guidance:g}",
        words=["measure", "combinations"],
    )


def _cells(accuracy: "Accuracy | None") -> list[str]:
    """Value, interval and images; None where no caption asks for it."""
    if accuracy is None:
        return ["-", "not asked", "0"]
    interval = f"{accuracy.low:.3f} to {accuracy.high:.3f}"
    return [f"{accuracy.value:.3f}", interval, str(accuracy.count)]


def _wordings(
    checkpoint: "Checkpoint",
    name: str,
    seeds: int,
    steps: int,
    guidance: float,
    device: str,
    *,
    as_json: bool,
) -> None:
    from attnsearch import evaluation
    from attnsearch.devices import named_device
    from attnsearch.sampling import SamplerConfig
    from attnsearch.task.wordings import wordings

    images = seeds * sum(len(prompts) for prompts in wordings(checkpoint.task).values())
    with progress("painting", images, "images") as advance:
        found = evaluation.robustness(
            checkpoint,
            seeds=seeds,
            sampler=SamplerConfig(steps=steps, guidance=guidance),
            device=named_device(device),
            advance=advance,
        )
    if as_json:
        print_json(
            {
                wording: {measure: asdict(each) for measure, each in accuracies.items()}
                for wording, accuracies in found.items()
            }
        )
        return
    shown = ("shape", "colour", "binding")
    print_table(
        ["wording", *shown, "relation", "95 % interval", "images"],
        [
            [
                wording,
                *(_cells(accuracies.get(measure))[0] for measure in shown),
                *_cells(accuracies["relation_loose"]),
            ]
            for wording, accuracies in found.items()
        ],
        title=f"{name} in other words, {steps} steps, guidance {guidance:g}",
        words=["wording"],
    )
