"""`attnsearch evaluate`."""

from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import show
from attnsearch.errors import ConfigError
from attnsearch.tables import PICTURE_SUFFIXES


def evaluate(
    checkpoint: options.Checkpoint,
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    wordings: Annotated[
        bool,
        typer.Option("--wordings", help="In other words instead: the, is, order, phrase, colours."),
    ] = False,
    device: options.Device = "auto",
    output: options.Output = None,
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

    A picture written with -o has the images of the first seed, each above its caption.

    Example: attnsearch evaluate model.pt --seeds 8 -o images.png -o accuracies.csv

    Example: attnsearch evaluate model.pt --wordings
    """
    drawn = [path for path in output or () if path.suffix in PICTURE_SUFFIXES]
    if wordings and drawn:
        raise ConfigError(f"{drawn[0]} would show the prompt grid as trained; leave out --wordings")
    from attnsearch.api.evaluate import evaluate as evaluated

    found = evaluated(
        checkpoint, seeds=seeds, steps=steps, guidance=guidance, wordings=wordings, device=device
    )
    show(found, output=output or (), as_json=as_json)
