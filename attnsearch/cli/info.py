"""`attnsearch info`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from attnsearch.cli import options
from attnsearch.cli.console import print_json, print_table
from attnsearch.lookup import find_model, find_store, is_pipeline
from attnsearch.progress import note

if TYPE_CHECKING:
    import xarray as xr

    from attnsearch.models import Checkpoint


_MEASURED_SAMPLES: Final = 32


def info(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="X",
            help="A checkpoint, a pipeline, a packaged model by name, or a store; default: the "
            "store in $ATTNSEARCH_STORE, or attnsearch.zarr here.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Describe a checkpoint, a PixArt .pth, a diffusers pipeline's folder or a store.

    Of a store also how much of its maps the basis keeps: the share of the energy of the attention
    to each role, 1 being all of it.

    Example: attnsearch info maps.zarr
    """
    place = str(find_store()) if path is None else path
    facts = _facts(place)
    if as_json:
        print_json(facts)
        return
    print_table(
        ["fact", "value"],
        [[name, str(value)] for name, value in facts.items()],
        title=options.store_name(place),
        words=["fact", "value"],
    )


def _facts(place: str) -> dict[str, Any]:
    if "://" in place:
        return _store_facts(place)
    path = find_model(place)
    if path.is_symlink() and not path.exists():
        return _store_facts(path)  # which says where the link leads
    if not path.is_dir():
        return _checkpoint_facts(path)
    return _pipeline_facts(path) if is_pipeline(path) else _store_facts(path)


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    from attnsearch.models import PixArtFile, describe_checkpoint

    checkpoint = describe_checkpoint(path)
    if isinstance(checkpoint, PixArtFile):
        return {
            "kind": "PixArt checkpoint",
            "sha256": checkpoint.digest,
            "parameters": checkpoint.parameters,
            **{f"model {name}": value for name, value in asdict(checkpoint.model).items()},
        }
    return {
        "kind": "checkpoint",
        "sha256": checkpoint.digest,
        "parameters": sum(t.numel() for t in checkpoint.average.values()),
        "encoder": f"{checkpoint.encoder.kind} {checkpoint.encoder.source}".strip(),
        "objective": str(checkpoint.objective),
        "training step": checkpoint.step,
        **_beginning(checkpoint),
        **{f"model {name}": value for name, value in asdict(checkpoint.model).items()},
        **{f"task {name}": value for name, value in asdict(checkpoint.task).items()},
        **(checkpoint.metrics[-1] if checkpoint.metrics else {}),
    }


def _beginning(checkpoint: "Checkpoint") -> dict[str, str]:
    origin = checkpoint.origin
    return {} if origin is None else {"from": origin.name, "from sha256": origin.digest}


def _pipeline_facts(path: Path) -> dict[str, Any]:
    import torch

    from attnsearch.scanning import PipelineSubject

    return dict(PipelineSubject(path, torch.device("cpu")).facts())


def _store_facts(place: Path | str) -> dict[str, Any]:
    from attnsearch.api.scans import opened_scans

    scans = opened_scans(place)
    for line in scans.notes:
        note(line)
    facts: dict[str, Any] = {"kind": "store", "scans": len(scans)}
    for name, scan in scans.items():
        sizes = scan["sketch"].sizes
        samples = sizes["sample"]
        maps = samples * sizes["step"] * sizes["branch"] * sizes["layer"] * sizes["head"]
        facts[name] = (
            f"{maps:,} maps of {samples} samples, {sizes['layer']} layers x {sizes['head']} heads"
        )
        facts |= {f"{name} {what}": count for what, count in scans.blocks(name).items()}
        if flagged := scan.attrs["flagged_samples"]:
            facts[f"{name} flagged"] = f"{flagged} more samples, not finite and left out"
        facts |= {f"{name} {what}": value for what, value in _basis_facts(scan).items()}
    return facts


def _basis_facts(scan: "xr.Dataset") -> dict[str, Any]:
    """How much of the maps the basis of a scan keeps, measured on its first samples."""
    from attnsearch.aggregation import kept_energy

    first = scan.isel(sample=slice(0, _MEASURED_SAMPLES))
    kept = kept_energy(first)
    by_role = {
        str(role): round(float(share), 4)
        for role, share in zip(kept["role"].to_numpy(), kept.to_numpy(), strict=True)
        if share == share  # a role that no prompt has is NaN
    }
    order = round(scan.sizes["basis"] ** 0.5)
    height, width = scan.attrs["grid"]
    return {
        "basis": f"{order} x {order} frequencies of {height} x {width} image tokens",
        **{f"energy kept, {role}": share for role, share in by_role.items()},
    }
