"""Do the heads that rank first matter most? Every head of every packaged model, switched off.

python benchmarks/causes.py [--seeds N] [--device cuda] [--kept FOLDER] [--output FILE]

Paints each model's prompt grid without each of its heads; without those of its heads that are in
a relational family (benchmarks/results/families.json), in several ways; and without random sets of
as many others. Families are of the models outside the overlap study, which are those painted. What
`--kept` has of a model is not painted again. `python benchmarks/relational_heads.py` writes what
comes out into docs/results.md.
"""

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from attnsearch import zoo
from attnsearch.ablation import Ablation, Mode, measure_effects
from attnsearch.axes import HeadAddress
from attnsearch.cli.console import progress
from attnsearch.devices import named_device
from attnsearch.models import load_checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch_kernels.machine import describe_machine

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "causes.json"
FAMILIES: Final = RESULTS.with_name("families.json")
RANDOM_SETS: Final = 20
SURE: Final = 0.05
MEASURES: Final = ("shape", "colour", "binding", "relation_loose", "opposite")

Heads = frozenset[HeadAddress]


def main() -> None:
    """Paint, score, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="Images per prompt.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--kept", type=Path, help="Keep what is done of each model here.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        kept = arguments.kept or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        models = []
        for path in zoo.packaged():
            if path.stem.startswith("overlap"):
                continue
            done = kept / f"{path.stem}.json"
            if not done.exists():
                found = of_model(path, arguments.seeds, arguments.device)
                done.write_text(json.dumps(found), encoding="utf-8")
            models.append(json.loads(done.read_text(encoding="utf-8")))
            print(*_lines(models[-1]), sep="\n", flush=True)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "device": arguments.device,
        "seeds": arguments.seeds,
        "models": models,
    }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def of_model(path: Path, seeds: int, device: str) -> dict[str, Any]:
    """Every ablation of one model."""
    checkpoint = load_checkpoint(path)
    depth, width = checkpoint.model.depth, checkpoint.model.heads
    every = [HeadAddress(layer, head) for layer in range(depth) for head in range(width)]
    family = family_heads(path.stem)
    asked = [("alone", Mode.MEAN, frozenset({head})) for head in every]
    if family:
        asked += [("family", mode, family) for mode in Mode if mode is not Mode.SCALE]
        asked += [("random", Mode.MEAN, heads) for heads in _random_sets(every, family)]
        asked += [("layer", Mode.MEAN, heads) for heads in _layer_sets(every, family)]
    images = (1 + len(asked)) * 96 * seeds
    with progress(path.stem, images, "images") as advance:
        effects = measure_effects(
            checkpoint,
            [Ablation(heads=heads, mode=mode) for _, mode, heads in asked],
            seeds=seeds,
            sampler=SamplerConfig(),
            device=named_device(device),
            advance=advance,
        )
    return {
        "name": path.stem,
        "ablations": [
            {
                "set": kind,
                "mode": mode.value,
                "heads": [str(head) for head in sorted(heads)],
                "effects": {measure: asdict(effect[measure]) for measure in MEASURES},
            }
            for (kind, mode, heads), effect in zip(asked, effects, strict=True)
        ],
    }


def family_heads(model: str) -> Heads:
    """Its heads in relational families that cover more models than unrelated heads would."""
    families = json.loads(FAMILIES.read_text(encoding="utf-8"))["families"]
    return frozenset(
        HeadAddress.parse(head)
        for family in families
        if family["name"].startswith("relational") and family["p_value"] < SURE
        for head in family["heads"].get(model, [])
    )


def _random_sets(every: list[HeadAddress], family: Heads) -> list[Heads]:
    """As many other heads, wherever they are."""
    others = [head for head in every if head not in family]
    possible = [frozenset(heads) for heads in combinations(others, len(family))]
    chosen = np.random.default_rng(0).permutation(len(possible))[:RANDOM_SETS]
    return [possible[number] for number in chosen]


def _layer_sets(every: list[HeadAddress], family: Heads) -> list[Heads]:
    """All sets of other heads that have as many in each layer."""
    layers = sorted(head.layer for head in family)
    others = [head for head in every if head not in family]
    return [
        frozenset(heads)
        for heads in combinations(others, len(family))
        if sorted(head.layer for head in heads) == layers
    ]


def _lines(model: dict[str, Any]) -> list[str]:
    """A row for each set, the most harmful first."""
    rows = sorted(
        model["ablations"], key=lambda row: row["effects"]["relation_loose"]["difference"]
    )
    return [
        f"{model['name']:20} {row['set']:7} {row['mode']:9} {','.join(row['heads']):12} "
        + "  ".join(f"{name} {row['effects'][name]['after']:.2f}" for name in MEASURES)
        for row in rows[:8]
    ]


if __name__ == "__main__":
    main()
