"""Do the heads that rank first matter most? Every head of every packaged model, switched off.

python benchmarks/causes.py [--seeds N] [--device cuda] [--kept FOLDER] [--output FILE]

Paints each model's prompt grid without each of its heads; without those of its heads that are in
a relational family (benchmarks/results/families.json), in several ways; and without random sets of
as many others. Families are of the models outside the overlap study, which are those painted. What
`--kept` has of a model is not painted again. `python benchmarks/relational_heads.py` writes what
comes out into docs/results.md.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from _by_model import RESULTS, family_heads, run

from attnsearch.ablation import Ablation, Effect, Mode, layer_sets, measure_effects, random_sets
from attnsearch.axes import HeadAddress
from attnsearch.models import load_checkpoint
from attnsearch.progress import progress
from attnsearch.sampling import SamplerConfig
from attnsearch.task.captions import grid_captions

RANDOM_SETS: Final = 20
MEASURES: Final = ("shape", "colour", "binding", "relation_loose", "opposite")


def main() -> None:
    """Paint, score, save."""
    run(__doc__, RESULTS / "causes.json", of_model, _lines)


def of_model(path: Path, seeds: int, device: torch.device) -> dict[str, Any]:
    """Every ablation of one model."""
    checkpoint = load_checkpoint(path)
    depth, width = checkpoint.model.depth, checkpoint.model.heads
    every = [HeadAddress(layer, head) for layer in range(depth) for head in range(width)]
    family = family_heads(path.stem)
    asked = [("alone", Mode.MEAN, frozenset({head})) for head in every]
    if family:
        asked += [("family", mode, family) for mode in Mode if mode is not Mode.SCALE]
        asked += [("random", Mode.MEAN, heads) for heads in random_sets(every, family, RANDOM_SETS)]
        asked += [("layer", Mode.MEAN, heads) for heads in layer_sets(every, family, RANDOM_SETS)]
    images = (1 + len(asked)) * len(grid_captions(checkpoint.task)) * seeds
    with progress(path.stem, images, "images") as advance:
        effects = [
            *measure_effects(
                checkpoint,
                [Ablation(heads=heads, mode=mode) for _, mode, heads in asked],
                seeds=seeds,
                sampler=SamplerConfig(),
                device=device,
                advance=advance,
            )
        ]
    return {
        "name": path.stem,
        "ablations": [
            {
                "set": kind,
                "mode": mode.value,
                "heads": [str(head) for head in sorted(heads)],
                "effects": {measure: _plain(effect[measure]) for measure in MEASURES},
            }
            for (kind, mode, heads), effect in zip(asked, effects, strict=True)
        ],
    }


def _plain(effect: Effect) -> dict[str, Any]:
    """Rounded to what so many images can tell; the measure is the key."""
    values = asdict(effect)
    del values["measure"]
    return {key: round(value, 4) for key, value in values.items()} | {
        "p_value": float(f"{effect.p_value:.3g}")
    }


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
