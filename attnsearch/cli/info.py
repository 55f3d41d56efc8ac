"""`attnsearch info`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from attnsearch.cli import options
from attnsearch.cli.console import print_json, print_table


def info(
    path: Annotated[Path, typer.Argument(metavar="X", help="A checkpoint or a store.")],
    as_json: options.Json = False,
) -> None:
    """Describe a checkpoint or a store.

    Example: attnsearch info maps.zarr
    """
    facts = _store_facts(path) if path.is_dir() else _checkpoint_facts(path)
    if as_json:
        print_json(facts)
        return
    print_table(
        ["fact", "value"],
        [[name, str(value)] for name, value in facts.items()],
        title=path.name,
        words=["fact", "value"],
    )


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    from attnsearch.models import load_checkpoint

    checkpoint = load_checkpoint(path)
    return {
        "kind": "checkpoint",
        "sha256": checkpoint.digest,
        "parameters": sum(t.numel() for t in checkpoint.average.values()),
        "encoder": f"{checkpoint.encoder.kind} {checkpoint.encoder.source}".strip(),
        "objective": str(checkpoint.objective),
        "training step": checkpoint.step,
        **{f"model {name}": value for name, value in asdict(checkpoint.model).items()},
        **{f"task {name}": value for name, value in asdict(checkpoint.task).items()},
        **(checkpoint.metrics[-1] if checkpoint.metrics else {}),
    }


def _store_facts(path: Path) -> dict[str, Any]:
    from attnsearch.store import open_scans

    scans = open_scans(path)
    facts: dict[str, Any] = {"kind": "store", "scans": len(scans)}
    for name, scan in scans.items():
        sizes = scan["sketch"].sizes
        samples = sizes["sample"]
        maps = samples * sizes["step"] * sizes["branch"] * sizes["layer"] * sizes["head"]
        facts[name] = (
            f"{maps:,} maps of {samples} samples, {sizes['layer']} layers x {sizes['head']} heads"
        )
    return facts
