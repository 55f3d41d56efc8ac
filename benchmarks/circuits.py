"""How do the packaged models place objects? Circuits, steering and other wordings, model by model.

python benchmarks/circuits.py [--seeds N] [--device cuda] [--kept FOLDER] [--output FILE]

For each model outside the overlap study: what `attnsearch circuit` says of its relational families'
heads (benchmarks/results/families.json; where there are none, those that lead by weights), of the
former what `attnsearch steer` makes and which words they need (`attnsearch ablate --mode mask`),
and `attnsearch evaluate --wordings`. What `--kept` has of a model is not done again. `python
benchmarks/relational_heads.py` writes what comes out into docs/results.md.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from _by_model import RESULTS, family_heads, run

from attnsearch.ablation import (
    Ablation,
    Lender,
    Mode,
    Tag,
    measure_effects,
    measure_tilts,
    steer_by_tag,
    steer_by_text,
)
from attnsearch.axes import HeadAddress
from attnsearch.circuits import circuit_of, position_share, screening_of
from attnsearch.evaluation import Accuracy, robustness
from attnsearch.models import Checkpoint, load_checkpoint
from attnsearch.sampling import SamplerConfig

IMAGES: Final = 96
"""Images by which weights are checked."""
LENDERS: Final = {
    Lender.COLOURS: "same colours, other shapes",
    Lender.SHAPES: "same shapes, colours swapped",
    Lender.ORDER: "same objects, other order",
}
HIDDEN: Final = {
    "relation phrase": {"relation", "filler"},
    "both colours": {"colour1", "colour2"},
    "colour 1": {"colour1"},
    "colour 2": {"colour2"},
    "both shapes": {"shape1", "shape2"},
}
SHOWN: Final = ("shape", "colour", "binding", "relation_loose")


def main() -> None:
    """Read, sample, save."""
    run(__doc__, RESULTS / "circuits.json", of_model, lambda model: [_line(model)])


def of_model(path: Path, seeds: int, device: torch.device) -> dict[str, Any]:
    """All of one model."""
    checkpoint, sampler = load_checkpoint(path), SamplerConfig()
    heads = family_heads(path.stem)
    found = circuit_of(screening_of(checkpoint), heads)
    tilts = measure_tilts(checkpoint, found.heads, images=IMAGES, sampler=sampler, device=device)
    explained = position_share(checkpoint, images=IMAGES, sampler=sampler, device=device)
    writers = [
        {
            "head": str(writer.address),
            "projection": round(writer.projection, 3),
            "cosine": round(writer.cosine, 4),
            "lowest_cosine": round(min(map(abs, writer.cosines.values())), 4),
            "q_value": round(writer.q_value, 4),
            "tag_length": round(writer.tag_length, 4),
            "tag_agreement": round(writer.tag_agreement, 4),
            "explained": _at(explained.mean(axis=0), writer.address),
        }
        for writer in found.writers
        if writer.address in found.heads
    ]
    readers: list[dict[str, Any]] = [
        {
            "head": str(reader.address),
            "tilt": _at(tilts.whole[0], reader.address),
            "tilt_without": _at(tilts.without[0], reader.address),
            "tilt_all_steps": _at(tilts.whole.mean(axis=0), reader.address),
            "tilt_all_steps_without": _at(tilts.without.mean(axis=0), reader.address),
            "response": round((reader.shape + reader.colour) / 2, 4),
            "q_value": round(reader.q_value, 4),
            "composition": round(reader.composition, 4),
            "shape_written": round(reader.shape_written, 3),
            "colour_written": round(reader.colour_written, 3),
        }
        for reader in found.readers
    ]
    readers.sort(key=lambda row: -abs(row["tilt"] - row["tilt_without"]))
    return {
        "name": path.stem,
        "images": IMAGES,
        "heads": [str(head) for head in sorted(found.heads)],
        "in_family": bool(heads),
        "writers": writers,
        "readers": readers,
        "steering": _steered(checkpoint, heads, seeds, sampler, device) if heads else {},
        "words": _words(checkpoint, heads, seeds, sampler, device) if heads else {},
        "wordings": {
            wording: _shares(accuracies, SHOWN)
            for wording, accuracies in robustness(
                checkpoint, seeds=seeds, sampler=sampler, device=device
            ).items()
        },
    }


def _steered(
    checkpoint: Checkpoint,
    heads: frozenset[HeadAddress],
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
) -> dict[str, Any]:
    """To the opposite relation, by the heads and by the relation words."""
    how: dict[str, Any] = {"seeds": seeds, "sampler": sampler, "device": device}
    ways = {
        name: steer_by_tag(checkpoint, heads, tag=Tag.PROMPT, lender=lender, **how)
        for lender, name in LENDERS.items()
    }
    ways["mean of prompts"] = steer_by_tag(checkpoint, heads, tag=Tag.IMAGES, **how)
    ways["weights"] = steer_by_tag(checkpoint, heads, tag=Tag.WEIGHTS, **how)
    ways["relation words"] = steer_by_text(checkpoint, frozenset({"relation"}), **how)
    return {name: _shares(way.after, ("target", "asked", *SHOWN[:3])) for name, way in ways.items()}


def _words(
    checkpoint: Checkpoint,
    heads: frozenset[HeadAddress],
    seeds: int,
    sampler: SamplerConfig,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    """Shares of images where the heads do not see some words."""
    ablations = [
        Ablation(heads=heads, mode=Mode.MASK, hide=frozenset(roles)) for roles in HIDDEN.values()
    ]
    effects = measure_effects(checkpoint, ablations, seeds=seeds, sampler=sampler, device=device)
    return {
        name: {measure: round(effect[measure].after, 4) for measure in (*SHOWN, "opposite")}
        for name, effect in zip(HIDDEN, effects, strict=True)
    }


def _shares(accuracies: dict[str, Accuracy], measures: tuple[str, ...]) -> dict[str, Any]:
    return {
        measure: {key: round(value, 4) for key, value in asdict(accuracies[measure]).items()}
        for measure in measures
        if measure in accuracies  # captions without colours ask for none
    }


def _at(values: Any, head: HeadAddress) -> float:
    return round(float(values[head.layer, head.head]), 4)


def _line(model: dict[str, Any]) -> str:
    reader = (
        model["readers"][0] if model["readers"] else {"head": "-", "tilt": 0, "tilt_without": 0}
    )
    return (
        f"{model['name']:20} {','.join(model['heads']):10} -> {reader['head']} "
        f"tilt {reader['tilt']:+.2f}, without {reader['tilt_without']:+.2f}  "
        + "  ".join(
            f"{name} {shares['target']['value']:.2f}" for name, shares in model["steering"].items()
        )
    )


if __name__ == "__main__":
    main()
