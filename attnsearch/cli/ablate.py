"""`attnsearch ablate`."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from attnsearch.axes import HeadAddress
from attnsearch.cli import options
from attnsearch.cli.console import note, print_json, print_table, progress
from attnsearch.errors import ConfigError

_SHOWN = ("relation_loose", "opposite", "binding", "shape", "colour")


def ablate(
    checkpoint: options.Checkpoint,
    head: Annotated[
        list[str] | None,
        typer.Option(metavar="L0H3[,L0H2]", help="Heads to switch off, together with commas."),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Also every head of cross-attention alone.")
    ] = False,
    mode: Annotated[
        Literal["zero", "mean", "mask", "resample", "opposite", "scale"],
        typer.Option(
            help="What they put out instead: nothing (zero); their mean over prompts (mean); what "
            "they do when the relation phrase is hidden from them (mask), for another prompt "
            "(resample), or for the opposite relation (opposite); their output times --factor "
            "(scale)."
        ),
    ] = "mean",
    factor: Annotated[float, typer.Option(help="For --mode scale.")] = 0.5,
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
    as_json: options.Json = False,
) -> None:
    """What a model no longer paints when heads are switched off.

    Paints the task's whole prompt grid with all heads, then without those asked for, from the same
    noise. Change: share of images with the relation, less that with all heads; its interval is
    95 %, over prompts. p: McNemar's, exact. Opposite: share with the objects in each other's place.
    Only the conditional branch of classifier-free guidance is touched. Compare a head with the
    others: --sweep.

    Example: attnsearch ablate attnsearch/zoo/rtep-femto-seed0.pt --head L0H3 --head L0H3,L0H2

    Example: attnsearch ablate attnsearch/zoo/rtep-femto-seed0.pt --sweep --mode mask

    Example: attnsearch ablate model.pt --head L2H8 --mode opposite --into L4H3
    """
    from attnsearch.ablation import Ablation, Mode, measure_effects
    from attnsearch.devices import named_device
    from attnsearch.models import load_checkpoint
    from attnsearch.sampling import SamplerConfig
    from attnsearch.task.captions import grid_captions

    groups = [options.head_group(group) for group in head or []]
    loaded = load_checkpoint(checkpoint)
    if sweep:
        layers, heads = range(loaded.model.depth), range(loaded.model.heads)
        alone = [frozenset({HeadAddress(layer, number)}) for layer in layers for number in heads]
        groups += [group for group in alone if group not in groups]
    if not groups:
        raise ConfigError("say which heads: --head L0H3, or --sweep for each of them")
    later = frozenset() if into is None else options.head_group(into)
    images = len(grid_captions(loaded.task)) * seeds * (1 + len(groups))
    with progress("painting", images, "images") as advance:
        effects = measure_effects(
            loaded,
            [
                Ablation(
                    heads=group,
                    mode=Mode(mode),
                    first_step=first_step,
                    last_step=last_step,
                    factor=factor,
                    into=later,
                )
                for group in groups
            ],
            seeds=seeds,
            sampler=SamplerConfig(steps=steps, guidance=guidance),
            device=named_device(device),
            advance=advance,
        )
    names = [",".join(map(str, sorted(group))) for group in groups]
    order = sorted(range(len(groups)), key=lambda k: effects[k][_SHOWN[0]].difference)
    if as_json:
        print_json(
            [
                {
                    "heads": names[k],
                    "mode": mode,
                    "effects": [asdict(e) for e in effects[k].values()],
                }
                for k in order
            ]
        )
        return
    whole = effects[0]
    print_table(
        ["without", "relation", "change", "interval", "p", *_SHOWN[1:]],
        [
            ["-", f"{whole[_SHOWN[0]].before:.3f}", "", "", ""]
            + [f"{whole[measure].before:.3f}" for measure in _SHOWN[1:]]
        ]
        + [
            [
                names[k],
                f"{effects[k][_SHOWN[0]].after:.3f}",
                f"{effects[k][_SHOWN[0]].difference:+.3f}",
                f"{effects[k][_SHOWN[0]].low:+.3f} to {effects[k][_SHOWN[0]].high:+.3f}",
                f"{effects[k][_SHOWN[0]].p_value:.2g}",
            ]
            + [f"{effects[k][measure].after:.3f}" for measure in _SHOWN[1:]]
            for k in order
        ],
        title=f"{checkpoint.name}, {mode} ablation",
        words=["without"],
    )
    note(f"{whole[_SHOWN[0]].images} images each")
