"""`attnsearch steer`."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from attnsearch.cli import options
from attnsearch.cli.console import print_json, print_table
from attnsearch.errors import ConfigError
from attnsearch.progress import progress


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
    from attnsearch.ablation import check_relation, check_roles, check_strength

    if (head is None) == (role is None):
        raise ConfigError("say what is steered by: --head L0H3, or --role relation")
    heads = frozenset() if head is None else options.head_group(head)
    roles = frozenset() if role is None else frozenset(role.split(","))
    check_roles(roles)
    check_relation(to)
    if heads:
        check_strength(tag, strength)
    from attnsearch.ablation import Lender, Tag, steer_by_tag, steer_by_text
    from attnsearch.devices import named_device
    from attnsearch.models import load_checkpoint
    from attnsearch.sampling import SamplerConfig
    from attnsearch.task.captions import grid_captions

    loaded = load_checkpoint(checkpoint)
    prompts = grid_captions(loaded.task)
    steered = sum(to is None or prompt.relation != to for prompt in prompts)
    sampler = SamplerConfig(steps=steps, guidance=guidance)
    with progress("painting", 2 * steered * seeds, "images") as advance:
        if heads:
            found = steer_by_tag(
                loaded,
                heads,
                tag=Tag(tag),
                lender=Lender(lender),
                to=to,
                strength=strength,
                seeds=seeds,
                sampler=sampler,
                device=named_device(device),
                advance=advance,
            )
        else:
            found = steer_by_text(
                loaded,
                roles,
                to=to,
                strength=strength,
                seeds=seeds,
                sampler=sampler,
                device=named_device(device),
                advance=advance,
            )
    if as_json:
        print_json(asdict(found))
        return
    print_table(
        ["images with", "before", "after", "95 % interval", "images"],
        [
            [
                _NAMES.get(measure, measure),
                f"{found.before[measure].value:.3f}",
                f"{after.value:.3f}",
                f"{after.low:.3f} to {after.high:.3f}",
                str(after.count),
            ]
            for measure, after in found.after.items()
        ],
        title=f"{checkpoint.name}, {head or role} to {to or 'the opposite'}, strength {strength:g}",
        words=["images with"],
    )


_NAMES = {"target": "the target relation", "asked": "the relation asked for"}
