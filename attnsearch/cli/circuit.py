"""`attnsearch circuit`."""

from pathlib import Path
from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import print_json, show
from attnsearch.lookup import find_model
from attnsearch.progress import note


def _files(paths: list[Path] | None) -> list[Path]:
    from attnsearch.api.circuit import check_circuit_output

    return [check_circuit_output(path) for path in paths or ()]


def circuit(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT",
            help="A checkpoint, a folder of a PixArt pipeline, or a packaged model by name.",
            callback=find_model,
        ),
    ],
    head: Annotated[
        str | None,
        typer.Option(metavar="L0H3[,L0H2]", help="Whose tag is followed; default: who leads."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, help="Images to check the weights against; 0 for none.")
    ] = 32,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    top: options.Top = 8,
    device: options.Device = "auto",
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Also write everything (.json) or the QK maps of the heads that are printed "
            "(.png, .svg, .pdf); may be given several times.",
            callback=_files,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """How a model places objects: which heads look where a relation points, and who reads them.

    From weights: the logits of every head between positions and relation words (projection on a
    ramp along the relation; positive: it looks where object 1 is to go), the tag it writes there,
    and how far that tag makes later heads prefer object 1's words. From a few sampled images: which
    share of the true logits positions explain, and the tilt of later heads, their preference for
    object 1's words towards object 1's side, with and without the heads that lead. A weight-space
    picture is as good as these agree.

    Example: attnsearch circuit rtep-femto-seed0

    Example: attnsearch circuit model.pt --head L2H8 -o circuit.json -o qk.png
    """
    from attnsearch.api.circuit import circuit as read

    found = read(model, head or (), images=images, steps=steps, guidance=guidance, device=device)
    for path in output or ():
        found.save(path, top)
        note(f"written: {path}")
    if as_json:
        print_json(found.record())
        return
    show(found.writers, top=top)
    if not found.readers:
        for line in found.readers.notes:
            note(line)
        return
    typer.echo()
    show(found.readers, top=top)
