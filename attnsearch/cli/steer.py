"""`attnsearch steer`."""

from typing import Annotated, Literal

import typer

from attnsearch.cli import options
from attnsearch.cli.console import show
from attnsearch.errors import ConfigError


def steer(
    checkpoint: options.Checkpoint,
    head: Annotated[
        str | None,
        typer.Option(metavar="L0H3[,L0H2]", help="Heads whose tag is that of another relation."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(metavar="relation[,shape2]", help="Or: words whose vectors are moved to it."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="RELATION", help="Such as upper_left; default: the opposite."),
    ] = None,
    strength: Annotated[float, typer.Option(help="How much of it, but for a prompt's tag.")] = 1.0,
    tag: Annotated[
        Literal["prompt", "images", "weights"],
        typer.Option(
            help="What the heads put out for other objects in the relation (prompt), their mean "
            "output over prompts that state it (images), or what they write for its words, added "
            "on its side (weights)."
        ),
    ] = "prompt",
    lender: Annotated[
        Literal["colours", "shapes", "order"],
        typer.Option(
            help="What of a prompt's objects the tag is taken from: other shapes in the same "
            "colours, the same shapes with colours swapped, or the same two in the other order."
        ),
    ] = "colours",
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 2,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    device: options.Device = "auto",
    output: options.OutputTable = None,
    as_json: options.Json = False,
) -> None:
    """Move objects to where the caption did not ask for, and see how often they go.

    Either by some heads, which say what they say of another relation in a prompt of other objects
    (--lender tells whether they speak of colours, of shapes or of the order), or by the text, whose
    token vectors are moved by the difference of two relations' means. The prompt grid is painted
    before and after; prompts that ask for the target themselves are left out. Intervals are Wilson
    95 %.

    Example: attnsearch steer rtep-femto-seed0 --head L0H3,L0H2

    Example: attnsearch steer minilm-femto-seed0 --role relation --to left
    """
    if (head is None) == (role is None):
        raise ConfigError("say what is steered by: --head L0H3, or --role relation")
    from attnsearch.api.steer import steer as steered

    found = steered(
        checkpoint,
        head,
        roles=role,
        to=to,
        strength=strength,
        tag=tag,
        lender=lender,
        seeds=seeds,
        steps=steps,
        guidance=guidance,
        device=device,
    )
    show(found, output=output or (), as_json=as_json)
