"""What the paper claims, held against the models trained here; every verdict is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

Model = dict[str, Any]

STRONG: Final = 0.5
"""Smallest size of the score of a head that is called relational."""
SURE: Final = 0.01
"""Largest q-value of such a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim of the paper."""

    paper: str
    here: str
    holds: bool
    why: str = ""
    """What may explain a difference."""


def claims(models: Sequence[Model], paper: dict[str, Any]) -> list[Claim]:
    """Every claim that these models can speak to."""
    largest = {row["encoder"]: row for row in reversed(paper["models"])}
    positions, without, contextual = (
        [model for model in models if model["encoder"] == name]
        for name in ("rtep", "rte", "minilm")
    )
    found: list[Claim] = []
    if positions:
        found += [
            _learns(positions, largest["rtep"]),
            _returns(positions),
            _dominates(positions),
            _generalises(positions),
        ]
    if without:
        found += [
            _swaps(without, largest["rte"]),
            _guesses(without, largest["rte"]),
            _absent(without),
        ]
    if contextual:
        found.append(_otherwise(contextual))
    return found


def relational_heads(model: Model) -> list[dict[str, Any]]:
    """The heads of a model that are called relational."""
    return [
        head for head in model["heads"] if abs(head["score"]) >= STRONG and head["q_value"] < SURE
    ]


def _learns(models: Sequence[Model], paper: dict[str, Any]) -> Claim:
    found = [_relation(model) for model in models]
    return Claim(
        paper="With random embeddings and positions relations are learned: "
        f"{paper['relation_loose']:.3f}",
        here=f"{_count(models)}: {_range(found)}",
        holds=all(value >= paper["relation_loose"] for value in found),
        why="Pixels instead of latents and balanced relations make the task here the easier one.",
    )


def _returns(models: Sequence[Model]) -> Claim:
    having = [model for model in models if relational_heads(model)]
    sizes = sorted({model["size"] for model in having})
    seeds = sorted({model["seed"] for model in having})
    return Claim(
        paper="They have a relational head, which returns across sizes and seeds",
        here=f"{len(having)} of {_count(models)} have one (size >= {STRONG}, q < {SURE}); sizes "
        f"{', '.join(sizes)}; seeds {', '.join(map(str, seeds))}",
        holds=len(having) == len(models),
    )


def _dominates(models: Sequence[Model]) -> Claim:
    paired = [
        model
        for model in models
        if min(abs(head["score"]) for head in model["heads"][:2]) >= STRONG
        and model["heads"][0]["score"] * model["heads"][1]["score"] < 0
    ]
    layers = sorted({f"L{head['layer']}" for m in models for head in relational_heads(m)})
    return Claim(
        paper="It is one dominant head, which marks object 1 (L2H8 of a model with 12 layers)",
        here=f"{len(paired)} of {_count(models)} have two, of opposite sign: one marks object 1, "
        f"the other object 2; layers {', '.join(layers)}",
        holds=not paired,
        why="The paper asked what the tokens of object 1 attend to, not those of object 2.",
    )


def _generalises(models: Sequence[Model]) -> Claim:
    rows = [model["relation_given_binding"]["held_out"] for model in models]
    values = [row["value"] for row in rows if row]
    return Claim(
        paper="The relation carries over to new combinations (poster)",
        here=f"given binding, held out: {_range(values)}",
        holds=bool(values) and min(values) >= 0.9,
    )


def _swaps(models: Sequence[Model], paper: dict[str, Any]) -> Claim:
    rows = [model["accuracies"]["in_distribution"]["binding"] for model in models]
    return Claim(
        paper="Without positions the two objects swap their colours by chance: binding "
        f"{paper['binding']:.3f}",
        here=f"{_count(models)}: {_range([row['value'] for row in rows])}",
        holds=all(row["low"] <= 0.5 for row in rows),
    )


def _guesses(models: Sequence[Model], paper: dict[str, Any]) -> Claim:
    rows = [model["relation_given_binding"]["in_distribution"] for model in models]
    return Claim(
        paper="Which of them comes first is a guess: relation given binding "
        f"{paper['relation_loose'] / paper['binding']:.3f}",
        here=f"{_count(models)}: {_range([row['value'] for row in rows if row])}",
        holds=all(row is not None and row["low"] <= 0.5 for row in rows),
        why="Below one half where the words of the relation are not followed well either.",
    )


def _absent(models: Sequence[Model]) -> Claim:
    sizes = [abs(model["heads"][0]["score"]) for model in models]
    return Claim(
        paper="They have no relational head",
        here=f"{_count(models)}: largest size {_range(sizes)}",
        holds=not any(relational_heads(model) for model in models),
    )


def _otherwise(models: Sequence[Model]) -> Claim:
    sizes = [abs(model["heads"][0]["score"]) for model in models]
    having = [model for model in models if relational_heads(model)]
    return Claim(
        paper="With a contextual encoder (T5) relations are learned without such a head",
        here=f"MiniLM in its place, {_count(models)}: relation "
        f"{_range([_relation(model) for model in models])}, {len(having)} with a relational head, "
        f"largest size {_range(sizes)}",
        holds=not having and all(_relation(model) >= STRONG for model in models),
        why="MiniLM is smaller than T5, and its tokens are not those of T5.",
    )


def _relation(model: Model) -> float:
    value: float = model["accuracies"]["in_distribution"]["relation_loose"]["value"]
    return value


def _count(models: Sequence[Model]) -> str:
    return "1 model" if len(models) == 1 else f"{len(models)} models"


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"
