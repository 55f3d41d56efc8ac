"""`attnsearch scan`."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnsearch.cli import options
from attnsearch.cli.console import human_bytes, print_json
from attnsearch.errors import ConfigError, PromptError, StoreError
from attnsearch.lookup import check_scan_name, find_store, name_scan, scan_name
from attnsearch.progress import note, progress
from attnsearch.task.spec import GRIDS

if TYPE_CHECKING:
    from attnsearch.scanning import ScanPlan, ScanRequest, Subject


def scan(
    models: options.Models,
    store: Annotated[
        str | None,
        typer.Option(
            help="Store to write to, a folder or a URL; made if need be. Default: "
            "$ATTNSEARCH_STORE, or attnsearch.zarr here."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the scan of one model; default: the file's.")
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(
            help="`grid`: all objects x relations, `grid-no-colours`; or a file; see above."
        ),
    ] = "grid",
    seeds: Annotated[int, typer.Option(min=1, help="Images per prompt.")] = 4,
    steps: options.Steps = 14,
    guidance: options.Guidance = 4.5,
    basis: Annotated[
        int | None,
        typer.Option(
            min=1, help="Spatial frequencies kept along each axis; default: all, up to 8."
        ),
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
    control: Annotated[
        bool, typer.Option("--control", help="Shuffle the weights of checkpoints, see above.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it would take as JSON; write nothing.")
    ] = False,
    device: options.Device = "auto",
    dask: options.Dask = "threads",
) -> None:
    """Sample images and keep a sketch of every map of text attention.

    Stopped at any time, the same command goes on where it stopped and ends with the same bytes.
    Given several times at once, on one machine or many, the processes share the work. Models are
    scanned one after the other, or with --dask by the workers of a Dask cluster: each opens a
    model and samples some blocks of it, and what a worker that dies had begun is done by another.

    `--prompts grid` names both colours. `grid-no-colour-1`, `grid-no-colour-2` and
    `grid-no-colours` leave them out.

    Prompts of a checkpoint are captions of its task, one a line. Prompts of a pipeline are free;
    mark the words to ask about by roles: `a {shape1:square} {relation:above} a {shape2:circle}`,
    one a line, or as JSON lines with character spans. Without marks every word is a role.

    With --control the weights are shuffled within every tensor, and the scan is called after the
    model with `-control`. rank and ask say what the heads of such scans score, beside the others.

    A store may hold scans of any number of models. Each is called after its file; a model of a name
    that is taken is refused, give it another --name.

    Example: attnsearch scan rtep-femto-seed0

    Example: attnsearch scan model.pt --store maps.zarr --seeds 8

    Example: attnsearch scan *.pt --store maps.zarr --dask tcp://host:8786

    Example: attnsearch scan pixart-sigma/ --prompts prompts.txt --batch 2 --store maps.zarr
    """
    from attnsearch.sampling import SamplerConfig

    reading = options.reading_of(
        encoder, encoder_source, encoder_dtype, heads, vae=vae, size=size, control=control
    )
    for model in models:
        reading.check(model)
    names = _names(models, name, control=control)
    if prompts not in GRIDS and not os.path.lexists(prompts):
        raise PromptError(
            f"cannot read prompts from {prompts}: there is no such file; --prompts is "
            f"{', '.join(GRIDS)}, or a file of prompts"
        )
    place = "" if dry_run else str(find_store(store, make=True))
    from attnsearch import scanning

    requests = [
        scanning.ScanRequest(
            model=model,
            name=called,
            prompts=prompts,
            seeds=seeds,
            sampler=SamplerConfig(steps=steps, guidance=guidance),
            order=basis,
            batch=batch,
            reading=reading,
            device=device,
        )
        for model, called in zip(models, names, strict=True)
    ]
    if dry_run:
        costs = [_cost(*request.open()) for request in requests]
        print_json(costs if len(costs) > 1 else costs[0])
        return
    here = dask == "threads"
    plans = _scan_here(requests, place) if here else _scan_there(requests, place, dask)
    _say_next(plans, store)


def _names(models: Sequence[Path], name: str | None, *, control: bool) -> list[str]:
    """What the scan of each model is called.

    Raises:
        ConfigError: two would be called the same.
        StoreError: the name that was given is none.
    """
    if name is not None:
        if len(models) > 1:
            raise ConfigError("--name is of one model; several are called after their files")
        check_scan_name(name)
        return [name]
    names = [scan_name(model, control=control) for model in models]
    if doubled := {each for each in names if names.count(each) > 1}:
        raise ConfigError(
            f"several models would be scanned as {', '.join(sorted(doubled))}; "
            "scan them one by one, each under a --name"
        )
    return [name_scan(model, control=control) for model in models]


def _scan_here(requests: "list[ScanRequest]", store: str) -> "list[ScanPlan]":
    """One model after the other, in this process."""
    from attnsearch import scanning

    if len(requests) > 1:
        for request in requests:
            request.open()  # so that nothing is begun where one of them cannot be read
    plans = []
    for request in requests:
        subject, plan = request.open()
        plans.append(plan)
        _announce([plan])
        with progress("scanning", plan.layout.maps, "maps") as advance:
            scanning.execute_plan(plan, subject, store, advance, note)
        _conclude(plan, store)
    return plans


def _scan_there(requests: "list[ScanRequest]", store: str, dask: str) -> "list[ScanPlan]":
    """All models, by the workers of a Dask scheduler."""
    from attnsearch import scanning
    from attnsearch.store import make_store

    plans = [request.open()[1] for request in requests]
    tasks = [
        task
        for request, plan in zip(requests, plans, strict=True)
        for task in scanning.scan_tasks(request, plan, store)
    ]
    from attnsearch.api.scans import opened_runner

    with opened_runner(dask) as runner, progress("scanning", len(tasks), "parts") as advance:
        _announce(plans)
        make_store(store)
        scanning.run_tasks(tasks, runner, advance)
    for plan in plans:
        _conclude(plan, store)
    return plans


def _announce(plans: "list[ScanPlan]") -> None:
    layouts = [plan.layout for plan in plans]
    note(
        f"{sum(each.maps for each in layouts):,} maps of {sum(each.samples for each in layouts)} "
        f"samples, {human_bytes(sum(each.bytes for each in layouts))} before compression"
    )


def _conclude(plan: "ScanPlan", store: str) -> None:
    from attnsearch.api.scans import incomplete
    from attnsearch.store import BLOCKS, BLOCKS_DONE, open_scan

    opened = open_scan(store, plan.name)
    done, blocks = opened.attrs[BLOCKS_DONE], opened.attrs[BLOCKS]
    if done < blocks:
        raise StoreError(
            f"scan {plan.name} in {store} is not complete: {done} of {blocks} blocks; "
            "run the same command again"
        )
    note(f"scan {plan.name} is complete in {store}")
    for line in incomplete({plan.name: opened}):
        note(line)


def _say_next(plans: "list[ScanPlan]", named: str | None) -> None:
    """The command to type next; a store that was named is named there too."""
    store = "" if named is None else f" {shlex.quote(named)}"
    # Free prompts need not have relation words; for these the other metrics are listed.
    relational = all("relation" in plan.layout.roles for plan in plans)
    note(
        f"next: attnsearch rank{store} --metric relational"
        if relational
        else "next: attnsearch rank --list"
    )


def _cost(subject: "Subject", plan: "ScanPlan") -> dict[str, Any]:
    from attnsearch import scanning

    cost = scanning.sketch_cost(plan, subject)
    return {
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
