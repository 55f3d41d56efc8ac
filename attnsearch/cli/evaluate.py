"""`attnsearch evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import note, print_json, print_table, progress


def evaluate(
    checkpoint: options.Checkpoint,
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet of the first seed (PNG).")
    ] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """How often does a model paint what it is asked: shape, colour, binding, relation.

    Paints the task's whole prompt grid, and tells combinations it was trained on from those held
    out. Intervals are Wilson 95 %.

    Example: attnsearch evaluate model.pt --seeds 8 --sheet images.png
    """
    from attnsearch import evaluation
    from attnsearch.devices import named_device
    from attnsearch.models import load_checkpoint
    from attnsearch.report import contact_sheet
    from attnsearch.sampling import SamplerConfig
    from attnsearch.task.captions import grid_captions

    loaded = load_checkpoint(checkpoint)
    images = len(grid_captions(loaded.task)) * seeds
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
            [
                name,
                split.replace("_", " "),
                f"{accuracy.value:.3f}",
                f"{accuracy.low:.3f} to {accuracy.high:.3f}",
                str(accuracy.count),
            ]
            for split, accuracies in result.accuracies.items()
            for name, accuracy in accuracies.items()
        ],
        title=f"{checkpoint.name}, {steps} steps, guidance {guidance:g}",
        words=["measure", "combinations"],
    )
