"""What the paper claims, held against the models trained here; every verdict is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

Model = dict[str, Any]

STRONG: Final = 0.5
"""Smallest size of the score of a head that is called relational."""
SURE: Final = 0.01
"""Largest q-value of such a head."""
LEARNED: Final = 0.75
"""Smallest share of images by which something is called learned; relation given binding is 1/2
for a model that guesses the order of the objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim of the paper."""

    paper: str
    here: str
    holding: int
    """Models of which it holds,"""
    models: int
    """out of so many."""
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether it holds of all, of some or of none."""
        if self.holding == self.models:
            return "agrees"
        return f"holds of {self.holding} of {self.models}" if self.holding else "differs"


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
            *_dominates(positions, paper["clip_pair"]),
            _generalises(positions),
            *_order(positions),
        ]
    if without:
        found += [_guesses(without, largest["rte"]), _absent(without)]
    if contextual:
        found.append(_otherwise(contextual))
    return found


def relational_heads(heads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are called relational."""
    return [head for head in heads if abs(head["score"]) >= STRONG and head["q_value"] < SURE]


def pooled(model: Model) -> dict[str, float]:
    """Shares over all prompts with both colours, held out or not, and relation given binding.

    Without word order the prompts that share their words are one prompt, in both splits.
    """
    full = ("in_distribution", "held_out")
    splits = [model["accuracies"][name] for name in full if name in model["accuracies"]]
    count = sum(split["binding"]["count"] for split in splits)
    shares = {
        name: sum(split[name]["value"] * split[name]["count"] for split in splits) / count
        for name in ("shape", "binding", "relation_loose")
    }
    given = shares["relation_loose"] / shares["binding"] if shares["binding"] else 0.0
    return shares | {"given_binding": given}


def _learns(models: Sequence[Model], paper: dict[str, Any]) -> Claim:
    found = [_relation(model) for model in models]
    return Claim(
        paper="With random embeddings and positions relations are learned: "
        f"{paper['relation_loose']:.3f}",
        here=f"{_count(models)}: {_range(found)}",
        holding=sum(value >= LEARNED for value in found),
        models=len(models),
        note="The task here is easier: pixels, balanced relations, one wording of each.",
    )


def _returns(models: Sequence[Model]) -> Claim:
    having = [model for model in models if relational_heads(model["heads"])]
    sizes = sorted({f"{model['size']} seed {model['seed']}" for model in having})
    return Claim(
        paper="They have a relational head, which returns across sizes and seeds",
        here=f"{len(having)} of {_count(models)} have one (size >= {STRONG}, q < {SURE}): "
        f"{', '.join(sizes) or '-'}",
        holding=len(having),
        models=len(models),
    )


def _dominates(models: Sequence[Model], pair: dict[str, Any]) -> list[Claim]:
    having = [model for model in models if relational_heads(model["heads"])]
    if not having:
        return []
    signs = [{head["score"] > 0 for head in relational_heads(m["heads"])} for m in having]
    layers = sorted({f"L{h['layer']}" for m in having for h in relational_heads(m["heads"])})
    both = sum(len(found) == 2 for found in signs)
    return [
        Claim(
            paper="It is one dominant head, which marks object 1 (L2H8 of a model with 12 layers)",
            here=f"{both} of {_count(having)} with such heads have one of either sign: one marks "
            f"object 1, one object 2; layers {', '.join(layers)}",
            holding=len(having) - both,
            models=len(having),
            note=f"The paper's CLIP {pair['size']} has such a pair in its first layer, by its "
            f"weights: cosines {pair['cosines'][0]:+.3f} and {pair['cosines'][1]:+.3f}.",
        )
    ]


def _generalises(models: Sequence[Model]) -> Claim:
    rows = [model["relation_given_binding"].get("held_out") for model in models]
    values = [row["value"] for row in rows if row]
    return Claim(
        paper="The relation carries over to new combinations (poster)",
        here=f"given binding, held out: {_range(values)}",
        holding=sum(value >= LEARNED for value in values),
        models=len(models),
        note="The mirrored caption of the same layout was trained on.",
    )


def _order(models: Sequence[Model]) -> list[Claim]:
    """Whether shapes are learned before relations, of the models whose training was followed."""
    followed = [model for model in models if model["emergence"]]
    if not followed:
        return []
    steps = [
        (since(m["emergence"], "shape", 0.5), since(m["emergence"], "given_binding", LEARNED))
        for m in followed
    ]
    return [
        Claim(
            paper="Shapes are learned before relations",
            here="; ".join(
                f"{model['name']}: shapes at {_step(shape)}, relation given binding at "
                f"{_step(relation)}"
                for model, (shape, relation) in zip(followed, steps, strict=True)
            ),
            holding=sum(
                shape is not None and (relation is None or shape < relation)
                for shape, relation in steps
            ),
            models=len(followed),
            note="Shapes are small here: an image token is a third of one.",
        )
    ]


def _guesses(models: Sequence[Model], paper: dict[str, Any]) -> Claim:
    found = [pooled(model) for model in models]
    return Claim(
        paper="Without positions the objects swap colours and places: binding "
        f"{paper['binding']:.3f} of shape {paper['shape']:.3f}, relation given binding "
        f"{paper['relation_loose'] / paper['binding']:.3f}",
        here=f"{_count(models)}, all prompts: binding {_range([p['binding'] for p in found])} of "
        f"shape {_range([p['shape'] for p in found])}, relation given binding "
        f"{_range([p['given_binding'] for p in found])}",
        holding=sum(p["binding"] <= 0.55 * p["shape"] and p["given_binding"] <= 0.5 for p in found),
        models=len(models),
        note="Half is so by construction: the four captions of the same words are one to it.",
    )


def _absent(models: Sequence[Model]) -> Claim:
    sizes = [abs(model["heads"][0]["score"]) for model in models]
    return Claim(
        paper="They have no relational head",
        here=f"{_count(models)}: largest size {_range(sizes)}",
        holding=sum(not relational_heads(model["heads"]) for model in models),
        models=len(models),
    )


def _otherwise(models: Sequence[Model]) -> Claim:
    sizes = [abs(model["heads"][0]["score"]) for model in models]
    having = sum(bool(relational_heads(model["heads"])) for model in models)
    return Claim(
        paper="With T5 relations are learned, but no head follows the relation words; by its "
        "weights one reads the relation from the word of shape 2",
        here=f"MiniLM in its place, {_count(models)}: relation "
        f"{_range([_relation(model) for model in models])}, {having} with a relational head, "
        f"largest size {_range(sizes)}",
        holding=sum(
            _relation(model) >= LEARNED and not relational_heads(model["heads"]) for model in models
        ),
        models=len(models),
        note="Another encoder, and only attention to the relation words is scored here.",
    )


def since(snapshots: Sequence[dict[str, Any]], what: str, least: float) -> int | None:
    """The step from which on a share stays at least so large, None if it does not."""
    reached = None
    for row in reversed(snapshots):
        if row[what] is None or row[what] < least:
            break
        reached = row["step"]
    return reached


def _relation(model: Model) -> float:
    value: float = model["accuracies"]["in_distribution"]["relation_loose"]["value"]
    return value


def _step(step: int | None) -> str:
    return "no step" if step is None else f"{step:,}"


def _count(models: Sequence[Model]) -> str:
    return "1 model" if len(models) == 1 else f"{len(models)} models"


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"
