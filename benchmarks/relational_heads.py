"""Do relational heads come with the encoding, and return across seeds and sizes?

Gathers what was measured of the packaged models (attnsearch/zoo) into
benchmarks/results/relational-heads.json, and writes docs/results.md with its pictures from that
file alone. Nothing is trained here; `attnsearch zoo train` and `zoo publish` make the records.
Run as `python benchmarks/relational_heads.py`.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from _results_claims import relational_heads
from _results_page import page, write_pictures

from attnsearch import zoo
from attnsearch.circuits import relation_maps, screen, screening_of
from attnsearch.evaluation import accuracy
from attnsearch.experiments import Experiment, read_experiment
from attnsearch.models import load_checkpoint
from attnsearch.report import qk_maps
from attnsearch.task.scenes import coverage, draw_scenes
from attnsearch.task.spec import OBJECT_PAIRS, SHAPES, TaskSpec
from attnsearch.zoo.emergence import read_emergence

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "relational-heads.json"
FAMILIES: Final = RESULTS.with_name("families.json")
"""Of `python benchmarks/families.py`."""
CAUSES: Final = RESULTS.with_name("causes.json")
"""Of `python benchmarks/causes.py`."""
CIRCUITS: Final = RESULTS.with_name("circuits.json")
"""Of `python benchmarks/circuits.py`."""
PAGE: Final = ROOT / "docs" / "results.md"
SCENES: Final = 20_000
DEMONSTRATION: Final = "rtep-femto-seed0"


def main() -> None:
    """Gather, save, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    results = gather()
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    arguments.page.write_text(page(results), encoding="utf-8")
    write_pictures(results, arguments.page.parent)
    draw_qk_maps(arguments.page.with_name("qk.png"))
    for row in results["models"]:
        best = row["heads"][0]
        loose = row["accuracies"]["in_distribution"]["relation_loose"]["value"]
        print(
            f"{row['name']:20} relation {loose:.3f}  L{best['layer']}H{best['head']} "
            f"{best['score']:+.3f}  q {best['q_value']:.2g}"
        )
    print("not trained yet:", ", ".join(results["missing"]) or "none")


def gather() -> dict[str, Any]:
    """The records of every packaged model, and which experiments have none."""
    experiments = {
        path.stem: read_experiment(path) for path in sorted((ROOT / "experiments").glob("*.toml"))
    }
    published = {path.stem: path for path in zoo.packaged()}
    overlaps: dict[TaskSpec, dict[str, float]] = {}
    models = []
    for name, experiment in experiments.items():
        if name not in published:
            continue
        task = experiment.task_spec()
        if task not in overlaps:
            overlaps[task] = overlap(task)
        models.append(_model(published[name]) | {"overlap": overlaps[task]})
    missing = [name for name in experiments if name not in published]
    return {
        "models": models,
        "families": json.loads(FAMILIES.read_text(encoding="utf-8"))["families"],
        "causes": _slim(json.loads(CAUSES.read_text(encoding="utf-8"))),
        "circuits": json.loads(CIRCUITS.read_text(encoding="utf-8")),
        "missing": missing,
        "outdated": _outdated(experiments, published),
    }


def _slim(causes: dict[str, Any]) -> dict[str, Any]:
    """What the page says of causes, without intervals."""
    kept = {"relation_loose": ("before", "after", "difference"), "opposite": ("after",)}
    kept["shape"] = ("after", "images")
    models = [
        {
            "name": model["name"],
            "ablations": [
                {key: row[key] for key in ("set", "mode", "heads")}
                | {
                    "effects": {
                        measure: {key: row["effects"][measure][key] for key in keys}
                        for measure, keys in kept.items()
                    }
                }
                for row in model["ablations"]
            ],
        }
        for model in causes["models"]
    ]
    return causes | {"models": models}


def draw_qk_maps(path: Path) -> None:
    """The QK maps of the two heads that lead in the demonstration model."""
    (checkpoint,) = (each for each in zoo.packaged() if each.stem == DEMONSTRATION)
    screening = screening_of(load_checkpoint(checkpoint))
    maps, _ = relation_maps(*screening)
    heads = [row.address for row in screen({DEMONSTRATION: screening})[:2]]
    selective = maps - maps.mean(axis=2, keepdims=True)
    qk_maps.draw(selective, screening.model.grid, heads).savefig(path, dpi=110)


def _outdated(experiments: dict[str, Experiment], published: dict[str, Path]) -> list[str]:
    """Models that were published under another experiment than their file now describes."""
    return [
        name
        for name, experiment in experiments.items()
        if name in published
        and not experiment.table().items() <= _read(published[name], "config").items()
    ]


def overlap(task: TaskSpec) -> dict[str, float]:
    """Shares of training scenes whose bounding boxes overlap, and where object 2 hides object 1."""
    scenes = draw_scenes(task, SCENES, torch.Generator().manual_seed(0))
    offset = (scenes.centre[:, 0] - scenes.centre[:, 1]).abs()
    boxes = (offset < 2 * task.radius).all(1)
    shapes = torch.tensor([[SHAPES.index(shape) for _, shape in pair] for pair in OBJECT_PAIRS])
    cover = coverage(
        shapes[scenes.pair].flatten(), scenes.centre.flatten(0, 1), task.radius, task.canvas
    )
    first, second = cover.unflatten(0, (-1, 2)).unbind(1)
    hidden = (torch.minimum(first, second) > 0.5).flatten(1).any(1)
    return {
        "boxes": round(float(boxes.float().mean()), 4),
        "hidden": round(float(hidden.float().mean()), 4),
    }


def _model(checkpoint: Path) -> dict[str, Any]:
    config = _read(checkpoint, "config")
    evaluation = _read(checkpoint, "evaluation")
    ranking = _read(checkpoint, "ranking")
    keys = (
        "name", "encoder", "size", "seed", "parameters", "task", "steps", "snapshots",
        "sampling_steps", "guidance", "machine",
    )  # fmt: skip
    return {
        **{key: config[key] for key in keys},
        "accuracies": evaluation,
        "relation_given_binding": {
            split: _given_binding(measures) for split, measures in evaluation.items()
        },
        "scan_samples": ranking["samples"],
        "heads": ranking["heads"],
        "best_head_by_step": ranking["best_head_by_step"],
        "heads_from_weights": [
            {
                "layer": row.layer,
                "head": row.head,
                # The last bits of a product of matrices are the machine's, not the model's.
                "cosine": round(row.cosine, 4),
                "projection": round(row.projection, 3),
                "q_value": round(row.q_value, 4),
            }
            for row in screen({checkpoint.stem: screening_of(load_checkpoint(checkpoint))})
        ],
        "emergence": _emergence(checkpoint) if config["snapshots"] else [],
    }


def _emergence(checkpoint: Path) -> list[dict[str, Any]]:
    """Accuracies, best head and number of relational heads of every snapshot."""
    raw = _read(checkpoint, "emergence")
    return [
        asdict(snapshot)
        | {
            "given_binding": snapshot.relation_given_binding,
            "relational_heads": len(relational_heads(row["heads"])),
        }
        for snapshot, row in zip(read_emergence(checkpoint), raw, strict=True)
    ]


def _given_binding(measures: dict[str, dict[str, float]]) -> dict[str, Any] | None:
    """The share of images with the relation among those with the objects, and its interval."""
    counts = {name: round(row["value"] * row["count"]) for name, row in measures.items()}
    if not counts["binding"]:
        return None
    outcomes = torch.arange(counts["binding"]) < counts["relation_loose"]
    return asdict(accuracy(outcomes.numpy()))


def _read(checkpoint: Path, part: str) -> Any:
    return json.loads(zoo.beside(checkpoint, part).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
