"""`attnsearch ablate`."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from attnsearch.axes import HeadAddress
from attnsearch.cli import options
from attnsearch.cli.console import print_json, print_table
from attnsearch.errors import ConfigError
from attnsearch.progress import note, progress

if TYPE_CHECKING:
    from attnsearch.ablation import Effect

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
    as_json: options.Json = False,
) -> None:
    """What a model no longer paints when heads are switched off.

    Paints the task's whole prompt grid with all heads, then without those asked for, from the same
    noise. Change: share of images with the relation, less that with all heads; its interval is
    95 %, over prompts. p: McNemar's, exact. Opposite: share with the objects in each other's place.
    Only the conditional branch of classifier-free guidance is touched. Compare with other heads:
    --sweep, or --beside 20, of which the median is printed, the range, and the share of sets that
    harm the relation as much.

    Example: attnsearch ablate rtep-femto-seed0 --head L0H3,L0H2 --beside 20

    Example: attnsearch ablate rtep-femto-seed0 --sweep --mode mask

    Example: attnsearch ablate model.pt --head L2H8 --mode mask --hide colour1,colour2

    Example: attnsearch ablate model.pt --head L2H8 --mode opposite --into L4H3
    """
    from attnsearch.ablation import Ablation, Mode, check_roles

    groups = [options.head_group(group) for group in head or []]
    if not groups and not sweep:
        raise ConfigError("say which heads: --head L0H3, or --sweep for each of them")
    if hide is not None and mode != "mask":
        raise ConfigError("--hide is for --mode mask")
    hidden = frozenset() if hide is None else frozenset(hide.split(","))
    check_roles(hidden)
    asked = partial(
        Ablation,
        mode=Mode(mode),
        first_step=first_step,
        last_step=last_step,
        factor=factor,
        hide=hidden,
        into=frozenset() if into is None else options.head_group(into),
    )
    for group in groups:
        asked(heads=group)  # refuses what cannot be, before torch is imported
    from attnsearch.ablation import layer_sets, measure_effects, random_sets
    from attnsearch.devices import named_device
    from attnsearch.models import load_checkpoint
    from attnsearch.sampling import SamplerConfig
    from attnsearch.task.captions import grid_captions

    loaded = load_checkpoint(checkpoint)
    layers, heads = range(loaded.model.depth), range(loaded.model.heads)
    every = [HeadAddress(layer, number) for layer in layers for number in heads]
    rows = [_Row("asked", group) for group in groups]
    if sweep:
        alone = [frozenset({address}) for address in every]
        rows += [_Row("sweep", group) for group in alone if group not in groups]
    for group in groups:
        rows += [_Row("random", other, group) for other in random_sets(every, group, beside)]
        rows += [_Row("layer", other, group) for other in layer_sets(every, group, beside)]
    images = len(grid_captions(loaded.task)) * seeds * (1 + len(rows))
    ablations = [asked(heads=row.heads) for row in rows]
    effects: list[dict[str, Effect]] = []
    stopped: KeyboardInterrupt | None = None
    with progress("painting", images, "images") as advance:
        try:
            for effect in measure_effects(
                loaded,
                ablations,
                seeds=seeds,
                sampler=SamplerConfig(steps=steps, guidance=guidance),
                device=named_device(device),
                advance=advance,
            ):
                effects.append(effect)
        except KeyboardInterrupt as error:
            if not effects:
                raise
            stopped = error
    _print(checkpoint.name, mode, rows[: len(effects)], effects, as_json=as_json)
    if stopped is not None:
        note(f"stopped; {len(effects)} of {len(rows)} sets of heads were finished")
        raise typer.Exit(getattr(stopped, "exit_code", 130))


def _print(
    name: str,
    mode: str,
    rows: "Sequence[_Row]",
    effects: "Sequence[dict[str, Effect]]",
    *,
    as_json: bool,
) -> None:
    """All sets, the most harmful first."""
    found = sorted(zip(rows, effects, strict=True), key=lambda pair: pair[1][_SHOWN[0]].difference)
    if as_json:
        print_json(
            [
                {
                    "heads": _names(row.heads),
                    "set": row.kind,
                    "beside": _names(row.beside),
                    "mode": mode,
                    "effects": [asdict(each) for each in effect.values()],
                }
                for row, effect in found
            ]
        )
        return
    whole = effects[0]
    relation, *others = _SHOWN
    cells = [["-", f"{whole[relation].before:.3f}", "", "", ""]]
    cells[0] += [f"{whole[measure].before:.3f}" for measure in others]
    for row, effect in found:
        if row.kind in ("asked", "sweep"):
            cells.append(
                [
                    _names(row.heads),
                    f"{effect[relation].after:.3f}",
                    f"{effect[relation].difference:+.3f}",
                    f"{effect[relation].low:+.3f} to {effect[relation].high:+.3f}",
                    f"{effect[relation].p_value:.2g}",
                    *(f"{effect[measure].after:.3f}" for measure in others),
                ]
            )
        if row.kind == "asked":
            cells += _controls(row.heads, effect, found)
    print_table(
        ["without", "relation", "change", "interval", "p", *others],
        cells,
        title=f"{name}, {mode} ablation",
        words=["without"],
    )
    note(f"{whole[relation].images} images each")


class _Row(NamedTuple):
    kind: Literal["asked", "sweep", "random", "layer"]
    heads: frozenset[HeadAddress]
    beside: frozenset[HeadAddress] = frozenset()
    """The heads asked for that these are held against."""


def _controls(
    heads: frozenset[HeadAddress],
    effect: "dict[str, Effect]",
    found: "Sequence[tuple[_Row, dict[str, Effect]]]",
) -> list[list[str]]:
    """A line for the random sets beside some heads, and one for those of the same layers."""
    from statistics import median

    relation, *others = _SHOWN
    lines = []
    for kind, where in (("random", "anywhere"), ("layer", "in these layers")):
        held = [other for row, other in found if row.kind == kind and row.beside == heads]
        if not held:
            continue
        changes = [other[relation].difference for other in held]
        harmful = sum(change <= effect[relation].difference for change in changes)
        lines.append(
            [
                f"  {len(held)} others {where}",
                f"{median(other[relation].after for other in held):.3f}",
                f"{median(changes):+.3f}",
                f"{min(changes):+.3f} to {max(changes):+.3f}",
                f"{(harmful + 1) / (len(held) + 1):.2g}",
                *(f"{median(other[name].after for other in held):.3f}" for name in others),
            ]
        )
    return lines


def _names(group: frozenset[HeadAddress]) -> str:
    return ",".join(map(str, sorted(group)))
