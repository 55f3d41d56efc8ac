"""`attnsearch scan`."""

from pathlib import Path
from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.cli.console import human_bytes, note, print_json, progress


def scan(
    checkpoint: options.Checkpoint,
    store: Annotated[Path, typer.Option(help="Store to write to; made if need be.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the scan in the store; default: the file's.")
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="`grid`: all objects x relations; or a file, one caption a line.")
    ] = "grid",
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take as JSON; write nothing.")
    ] = False,
    device: options.Device = "auto",
) -> None:
    """Sample images and keep a sketch of every cross-attention map.

    Stopped at any time, the same command goes on where it stopped and ends with the same bytes.

    Example: attnsearch scan model.pt --store maps.zarr --seeds 8
    """
    from attnsearch import scanning
    from attnsearch.models import load_checkpoint
    from attnsearch.sampling import SamplerConfig

    loaded = load_checkpoint(checkpoint)
    target = options.torch_device(device)
    plan = scanning.plan_scan(
        loaded,
        name=name or scanning.scan_name(checkpoint),
        captions=scanning.read_prompts(prompts, loaded.task),
        seeds=seeds,
        sampler=SamplerConfig(steps=steps, guidance=guidance),
        device=scanning.device_name(target),
    )
    if dry_run:
        cost = scanning.sketch_cost(plan, loaded)
        print_json(
            {
                "scan": plan.name,
                "samples": plan.layout.samples,
                "maps": plan.layout.maps,
                "bytes": plan.layout.bytes,
                "blocks": plan.layout.blocks,
                "seconds": round(scanning.estimate_seconds(plan, loaded, target), 1),
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
        scanning.execute_plan(plan, loaded, store, target, advance)
    note(f"scan {plan.name} is complete in {store}")
