"""Benchmarks that do the same to every packaged model outside the overlap study, one by one."""

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from attnsearch import zoo
from attnsearch.axes import HeadAddress
from attnsearch.devices import named_device
from attnsearch_kernels.machine import describe_machine

RESULTS: Final = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
FAMILIES: Final = RESULTS / "families.json"
SURE: Final = 0.05
"""Largest p-value of a family that covers more models than unrelated heads would."""

Found = dict[str, Any]


def run(
    description: str | None,
    output: Path,
    measure: Callable[[Path, int, torch.device], Found],
    lines: Callable[[Found], Sequence[str]],
) -> None:
    """Measure every model by its checkpoint, seeds and device; print lines and save all."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=1, help="Images per prompt.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--kept", type=Path, help="Keep what is done of each model here.")
    parser.add_argument("--output", type=Path, default=output)
    arguments = parser.parse_args()
    device = named_device(arguments.device)
    with TemporaryDirectory() as folder:
        kept = arguments.kept or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        models = []
        for path in zoo.packaged():
            if path.stem.startswith("overlap"):
                continue
            done = kept / f"{path.stem}.json"
            if not done.exists():
                done.write_text(json.dumps(measure(path, arguments.seeds, device)))
            models.append(json.loads(done.read_text(encoding="utf-8")))
            print(*lines(models[-1]), sep="\n", flush=True)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "device": str(device),
        "seeds": arguments.seeds,
        "models": models,
    }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def family_heads(model: str) -> frozenset[HeadAddress]:
    """Its heads in relational families that cover more models than unrelated heads would."""
    families = json.loads(FAMILIES.read_text(encoding="utf-8"))["families"]
    return frozenset(
        HeadAddress.parse(head)
        for family in families
        if family["name"].startswith("relational") and family["p_value"] < SURE
        for head in family["heads"].get(model, [])
    )
