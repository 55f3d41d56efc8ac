"""`attnsearch scan`."""

from pathlib import Path
from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import human_bytes, note, note_left_out, print_json, progress


def scan(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A checkpoint, a PixArt .pth, or a diffusers pipeline's folder."
        ),
    ],
    store: Annotated[
        str, typer.Option(help="Store to write to, a folder or a URL; made if need be.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the scan in the store; default: the file's.")
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="`grid`: all objects x relations; or a file, see above.")
    ] = "grid",
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    basis: Annotated[
        int | None,
        typer.Option(help="Spatial frequencies kept along each axis; default: all, up to 8."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Most samples painted at once; default: up to 64.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side of a pipeline's images; default: its own.")
    ] = None,
    encoder: options.Encoder = None,
    encoder_source: options.EncoderSource = "",
    encoder_dtype: options.EncoderDtype = "float32",
    heads: options.Heads = None,
    vae: Annotated[Path | None, typer.Option(help="Folder of the VAE of a latent model.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take as JSON; write nothing.")
    ] = False,
    device: options.Device = "auto",
) -> None:
    """Sample images and keep a sketch of every map of text attention.

    Stopped at any time, the same command goes on where it stopped and ends with the same bytes.
    Given several times at once, on one machine or many, the processes share the work.

    Prompts of a checkpoint are captions of its task, one a line. Prompts of a pipeline are free;
    mark the words to ask about by roles: `a {shape1:square} {relation:above} a {shape2:circle}`,
    one a line, or as JSON lines with character spans. Without marks every word is a role.

    Example: attnsearch scan model.pt --store maps.zarr --seeds 8

    Example: attnsearch scan pixart-sigma/ --prompts prompts.txt --batch 2 --store maps.zarr
    """
    from attnsearch import scanning
    from attnsearch.encoders import EncoderKind
    from attnsearch.sampling import SamplerConfig
    from attnsearch.store import open_scan

    reading = scanning.Reading(
        encoder=None if encoder is None else EncoderKind(encoder),
        encoder_source=encoder_source,
        encoder_dtype=encoder_dtype,
        heads=heads,
        vae=vae,
        size=size,
    )
    subject = scanning.open_subject(model, options.torch_device(device), reading)
    plan = scanning.plan_scan(
        subject,
        name=name or scanning.scan_name(model),
        prompts=scanning.prompts_of(subject, prompts),
        seeds=seeds,
        sampler=SamplerConfig(steps=steps, guidance=guidance),
        order=basis,
        batch=batch,
    )
    if dry_run:
        cost = scanning.sketch_cost(plan, subject)
        print_json(
            {
                "scan": plan.name,
                "samples": plan.layout.samples,
                "maps": plan.layout.maps,
                "bytes": plan.layout.bytes,
                "blocks": plan.layout.blocks,
                "seconds": round(scanning.estimate_seconds(plan, subject), 1),
                "attention_flops": cost.attention_flops,
                "sketch_flops": cost.sketch_flops,
                "sketch_fraction": round(cost.sketch_fraction, 3),
                "floor_seconds": cost.floor_seconds and round(cost.floor_seconds, 6),
            }
        )
        return
    note(
        f"{plan.layout.maps:,} maps of {plan.layout.samples} samples, "
        f"{human_bytes(plan.layout.bytes)} before compression"
    )
    with progress("scanning", plan.layout.maps, "maps") as advance:
        scanning.execute_plan(plan, subject, store, advance, note)
    note(f"scan {plan.name} is complete in {store}")
    note_left_out({plan.name: open_scan(store, plan.name)})
