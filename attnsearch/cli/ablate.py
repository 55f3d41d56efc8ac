"""`attnsearch ablate`."""

from typing import Annotated, Literal

import typer

from attnsearch.cli import options
from attnsearch.cli.console import show
from attnsearch.errors import ConfigError
from attnsearch.progress import note


def ablate(
    checkpoint: options.Checkpoint,
    head: Annotated[
        list[str] | None,
        typer.Option(metavar="L0H3[,L0H2]", help="Heads to switch off, together with commas."),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also every head of cross-attention alone.")
    ] = False,
    beside: Annotated[
        int,
        typer.Option(min=0, help="Also so many sets of other heads, anywhere and in these layers."),
    ] = 0,
    mode: Annotated[
        Literal["zero", "mean", "mask", "resample", "opposite", "scale"],
        typer.Option(
            help="What they put out instead: nothing (zero); their mean over prompts (mean); what "
            "they do when some words are hidden from them (mask), for another prompt "
            "(resample), or for the opposite relation (opposite); their output times --factor "
            "(scale)."
        ),
    ] = "mean",
    factor: Annotated[float, typer.Option(help="For --mode scale.")] = 0.5,
    hide: Annotated[
        str | None,
        typer.Option(
            metavar="colour1[,colour2]",
            help="For --mode mask: roles of the words; default: the relation phrase.",
        ),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="L3H1[,L3H2]",
            help="Off only in what the queries of these later heads read of them directly.",
        ),
    ] = None,
    first_step: Annotated[int, typer.Option(min=0, help="First step they are off.")] = 0,
    last_step: Annotated[
        int | None, typer.Option(min=0, help="Last step they are off; default: the last.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 2,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    device: options.Device = "auto",
    output: options.Output = None,
    as_json: options.Json = False,
) -> None:
    """What a model no longer paints when heads are switched off.

    Paints the task's whole prompt grid with all heads, then without those asked for, from the same
    noise. Change: share of images with the relation, less that with all heads; its interval is
    95 %, over prompts. p: McNemar's, exact. Opposite: share with the objects in each other's place.
    Only the conditional branch of classifier-free guidance is touched. Compare with other heads:
    --sweep, or --beside 20, of which the median is printed, the range, and the share of sets that
    harm the relation as much. Ctrl-C prints the sets that are finished.

    Example: attnsearch ablate rtep-femto-seed0 --head L0H3,L0H2 --beside 20 -o effects.png

    Example: attnsearch ablate rtep-femto-seed0 --sweep --mode mask

    Example: attnsearch ablate model.pt --head L2H8 --mode mask --hide colour1,colour2

    Example: attnsearch ablate model.pt --head L2H8 --mode opposite --into L4H3
    """
    if not head and not sweep:
        raise ConfigError("say which heads: --head L0H3, or --sweep for each of them")
    if hide is not None and mode != "mask":
        raise ConfigError("--hide is for --mode mask")
    from attnsearch.api.ablate import ablate as ablated

    found = ablated(
        checkpoint,
        head or [],
        sweep=sweep,
        beside=beside,
        mode=mode,
        factor=factor,
        hide=hide,
        into=into,
        first_step=first_step,
        last_step=last_step,
        seeds=seeds,
        steps=steps,
        guidance=guidance,
        device=device,
    )
    for path in output or ():
        found.save(path)
        note(f"written: {path}")
    show(found if as_json else found.summary(), as_json=as_json)
    if found.stopped is not None:
        raise typer.Exit(getattr(found.stopped, "exit_code", 130))
