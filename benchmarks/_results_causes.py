"""The sections of docs/results.md on what heads cause, and by which path."""

from collections.abc import Sequence
from typing import Any, Final

from _results_text import address, paragraph, table
from scipy.stats import spearmanr

Model = dict[str, Any]

SWAPPED: Final = 0.9
"""Share of images in which the objects have to change places for heads to be called sufficient."""
LOST: Final = 0.5
"""Share of its tilt that a head has to lose to be called one that reads."""
KEPT: Final = 0.5
"""Share of images that has to show the relation for hidden words not to be called needed."""
_WAYS: Final = ("mean", "zero", "mask", "resample", "opposite")


def causes_sections(
    causes: dict[str, Any] | None,
    circuits: dict[str, Any] | None,
    models: Sequence[Model],
    paper: dict[str, float],
) -> list[str]:
    """All lines, none without measurements; `paper` is what it says of its own ablation."""
    if causes is None or circuits is None:
        return []
    return [
        *_rank_section(causes, models),
        *_family_section(causes, paper),
        *_chain_section(circuits),
        *_steering_section(circuits),
        *_words_section(circuits),
        *_wording_section(circuits),
    ]


def rank_against_effect(model: Model, ablations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How the orders of heads agree with what each alone costs the relation."""
    loss = {
        row["heads"][0]: -row["effects"]["relation_loose"]["difference"]
        for row in ablations
        if row["set"] == "alone"
    }
    by_maps = {address(head): abs(head["score"]) for head in model["heads"]}
    by_weights = {address(head): abs(head["projection"]) for head in model["heads_from_weights"]}
    heads = sorted(loss)
    worst = max(heads, key=lambda head: loss[head])
    lost = sum(max(value, 0.0) for value in loss.values())
    return {
        "worst": worst,
        "loss": loss[worst],
        "rank": 1 + sum(by_maps[head] > by_maps[worst] for head in heads),
        "first": max(heads, key=lambda head: by_maps[head]),
        "first_loss": loss[max(heads, key=lambda head: by_maps[head])],
        "share": max(loss.values()) / lost if lost else 0.0,
        "maps": _correlation([by_maps[h] for h in heads], [loss[h] for h in heads]),
        "weights": _correlation([by_weights[h] for h in heads], [loss[h] for h in heads]),
    }


def _correlation(one: list[float], other: list[float]) -> float | None:
    """Spearman's; None where nothing varies."""
    if len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(spearmanr(one, other).statistic)


def _rank_section(causes: dict[str, Any], models: Sequence[Model]) -> list[str]:
    by_name = {each["name"]: each["ablations"] for each in causes["models"]}
    rows = []
    for model in models:
        if model["name"] not in by_name:
            continue
        ablations = by_name[model["name"]]
        found = rank_against_effect(model, ablations)
        rows.append(
            [
                model["name"],
                _before(ablations, "relation_loose"),
                found["first"],
                f"{-found['first_loss']:+.2f}",
                found["worst"],
                f"{-found['loss']:+.2f}",
                str(found["rank"]),
                f"{found['share']:.2f}",
                _number(found["maps"]),
                _number(found["weights"]),
            ]
        )
    columns = [
        "model", "relation", "first by score", "change without", "most harmful", "its change",
        "its rank by score", "its share of all changes", "Spearman, score", "Spearman, weights",
    ]  # fmt: skip
    images = causes["models"][0]["ablations"][0]["effects"]["shape"]["images"]
    return [
        "## Do the heads that rank first matter most?",
        "",
        *paragraph(
            "`attnsearch ablate CKPT --sweep`: every head alone at its mean output, in the",
            f"conditional branch, {images} images each of the same prompts and noise. Spearman:",
            "of the size of the relational score, or of the projection from weights, with what",
            "the relation loses without the head.",
        ),
        *table(columns, rows),
        "",
    ]


def _family_section(causes: dict[str, Any], paper: dict[str, float]) -> list[str]:
    rows, swapped, kept, counted = [], 0, 0, 0
    hidden: list[tuple[float, float, float]] = []
    for model in causes["models"]:
        family = {row["mode"]: row for row in model["ablations"] if row["set"] == "family"}
        if not family:
            continue
        counted += 1
        opposite, masked = family["opposite"]["effects"], family["mask"]["effects"]
        relation = masked["relation_loose"]
        if opposite["opposite"]["after"] >= SWAPPED:
            swapped += 1
            hidden.append((relation["before"], relation["after"], masked["shape"]["after"]))
        kept += opposite["shape"]["after"] >= SWAPPED
        others = [
            row["effects"]["relation_loose"]["after"]
            for row in model["ablations"]
            if row["set"] == "random"
        ]
        layer = [
            row["effects"]["relation_loose"]["after"]
            for row in model["ablations"]
            if row["set"] == "layer"
        ]
        own = family["mean"]["effects"]["relation_loose"]["after"]
        at_most = sum(other <= own for other in others)
        rows.append(
            [
                model["name"],
                ", ".join(family["mean"]["heads"]),
                _before(model["ablations"], "relation_loose"),
                *(_triple(family[way]["effects"]) for way in _WAYS),
                f"{min(others):.2f} to {max(others):.2f}",
                f"{(at_most + 1) / (len(others) + 1):.2g}",
                f"{min(layer):.2f} to {max(layer):.2f}" if layer else "-",
            ]
        )
    columns = [
        "model", "heads", "relation", *_WAYS, "random sets", "p", "others of these layers",
    ]  # fmt: skip
    return [
        "## What the heads of the relational families cause",
        "",
        *paragraph(
            "All a model's heads in families 1 and 2 together. In their place: their mean",
            "output, nothing, what they do without seeing the relation phrase, what they do for",
            "another prompt, or for the same objects in the opposite relation, from the same",
            "noise. Cells: share of images with the relation asked for / with the opposite one /",
            "with both shapes. Random sets: relation without as many other heads (mean output;",
            f"{len(others)} sets at most), p the share of sets as harmful.",
        ),
        *table(columns, rows),
        "",
        *paragraph(
            "With what these heads say of the opposite relation the objects change places in at",
            f"least {SWAPPED:.0%} of the images of {swapped} of {counted} models, and shapes stay",
            f"in {kept}. The paper hid the relation words from its head: the relation fell from",
            f"{paper['relation']} to {paper['relation_without']}, shapes were as before. With the",
            f"phrase hidden (mask) in those {swapped} models, the relation of {_span(hidden, 0)}",
            f"becomes {_span(hidden, 1)}, and shapes suffer too: {_span(hidden, 2)}.",
        ),
    ]


def _chain_section(circuits: dict[str, Any]) -> list[str]:
    rows, read, counted = [], 0, 0
    for model in circuits["models"]:
        reader = next(iter(model["readers"]), None)
        if reader is None:
            continue
        if model["in_family"]:
            counted += 1
            read += abs(reader["tilt"] - reader["tilt_without"]) >= LOST * abs(reader["tilt"])
        rows.append(
            [
                model["name"],
                ", ".join(model["heads"]) + ("" if model["in_family"] else " (by weights)"),
                _range(model["writers"], "cosine", "{:+.2f}"),
                _range(model["writers"], "explained", "{:.2f}"),
                _range(model["writers"], "tag_agreement", "{:.2f}"),
                reader["head"],
                f"{reader['tilt']:+.2f}",
                f"{reader['tilt_without']:+.2f}",
                f"{reader['tilt_all_steps']:+.2f}",
                f"{reader['tilt_all_steps_without']:+.2f}",
                f"{reader['response']:+.2f}",
                f"{reader['q_value']:.2g}",
                f"{reader['composition']:.2f}",
            ]
        )
    images = circuits["models"][0]["images"]
    columns = [
        "model", "heads", "cosine", "explained", "agreement of tags", "who loses most", "tilt",
        "without", "all steps", "without", "direct answer", "q", "composition",
    ]  # fmt: skip
    return [
        "## From the relational heads to the object head",
        "",
        *paragraph(
            f"`attnsearch circuit`, {images} images. Cosine: of the QK maps",
            "of these heads with the ramps of the relations. Explained: share of the true logits",
            "of relation words that positions explain. Tilt: how many logits a later head prefers",
            "object 1's words towards object 1's side, at the first step, where the image is still",
            "noise, and over all; without: with the heads at their mean output, on the same noisy",
            "images. Direct answer: logits by which the tag of the weights makes it prefer object",
            "1's words, if nothing lies between.",
        ),
        *table(columns, rows),
        "",
        *paragraph(
            f"In {read} of the {counted} models with heads of these families there is a later",
            f"head that loses at least {LOST:.0%} of its tilt at the first step without them.",
        ),
    ]


def _steering_section(circuits: dict[str, Any]) -> list[str]:
    steered = [model for model in circuits["models"] if model["steering"]]
    ways = list(steered[0]["steering"])
    rows = [
        [
            model["name"],
            ", ".join(model["heads"]),
            *(
                f"{way['target']['value']:.2f} / {way['asked']['value']:.2f} / "
                f"{way['shape']['value']:.2f}"
                for way in model["steering"].values()
            ),
        ]
        for model in steered
    ]
    coloured = sum(_is_of_colours(model["steering"]) for model in steered)
    return [
        "## Steering to the opposite relation, and what the tag is of",
        "",
        *paragraph(
            "`attnsearch steer`: by what the heads put out for a prompt that states the opposite",
            "relation of other objects, from the same noise; by their mean output over prompts of",
            "it in the same colours; by the tag of their weights on its side; by moving the",
            "vectors of the relation words. Cells: share of images with the opposite relation /",
            "with the one asked for / with both shapes. A tag of object 1 would give the opposite",
            "relation whoever lends it; a tag of a shape, with the same shapes alone; a tag of a",
            "colour, with the same colours alone.",
        ),
        *table(["model", "heads", *ways], rows),
        "",
        *paragraph(
            f"In {coloured} of {len(steered)} models the colours of the lender decide: with the",
            f"same colours at least {SWAPPED:.0%} of the images show the opposite relation; with",
            "the same shapes in swapped colours, or the same objects in the other order, at least",
            "as many show the one asked for. The paper's account is a tag of object 1.",
        ),
    ]


def _is_of_colours(steering: dict[str, Any]) -> bool:
    """Whether the heads say where a colour goes, whatever its shape and place in the caption."""
    same, swapped, reordered = list(steering.values())[:3]
    return bool(
        same["target"]["value"] >= SWAPPED
        and swapped["asked"]["value"] >= SWAPPED
        and reordered["asked"]["value"] >= SWAPPED
    )


def _words_section(circuits: dict[str, Any]) -> list[str]:
    read = [model for model in circuits["models"] if model["words"]]
    rows = [
        [
            model["name"],
            ", ".join(model["heads"]),
            *(
                f"{after['relation_loose']:.2f} / {after['opposite']:.2f} / {after['shape']:.2f}"
                for after in model["words"].values()
            ),
        ]
        for model in read
    ]
    needing = [model["words"] for model in read if _needs(model["words"], "relation phrase")]
    colours = sum(_needs(words, "both colours") for words in needing)
    shapes = sum(_needs(words, "both shapes") for words in needing)
    return [
        "## Which words the relational heads need",
        "",
        *paragraph(
            "`attnsearch ablate CKPT --head ... --mode mask --hide ROLES`: the heads may not",
            "attend to some words, everything else sees them. Cells: share of images with the",
            "relation asked for / with the opposite one / with both shapes.",
        ),
        *table(["model", "heads", *read[0]["words"]], rows),
        "",
        *paragraph(
            f"Without the relation phrase fewer than {KEPT:.0%} of the images show the relation",
            f"in {len(needing)} of {len(read)} models. In {colours} of those it is so without the",
            f"colours, too, and in {shapes} without the shapes.",
        ),
    ]


def _needs(words: dict[str, Any], hidden: str) -> bool:
    """Whether relations are lost with these words."""
    return bool(words[hidden]["relation_loose"] < KEPT)


def _wording_section(circuits: dict[str, Any]) -> list[str]:
    models = circuits["models"]
    # Models whose training had a wording do not have it among the others.
    names = list(dict.fromkeys(name for model in models for name in model["wordings"]))

    def cell(shares: dict[str, Any] | None) -> str:
        if shares is None:
            return "-"
        return f"{shares['relation_loose']['value']:.2f} / {shares['shape']['value']:.2f}"

    rows = [
        [model["name"], *(cell(model["wordings"].get(name)) for name in names)] for model in models
    ]
    return [
        "## In other words",
        "",
        *paragraph(
            "`attnsearch evaluate CKPT --wordings`: the same requests with a word more, a word",
            "less, in another order or with another phrase for the relation, none of which was",
            "trained. Cells: share of images with the relation / with both shapes.",
        ),
        *table(["model", *names], rows),
        "",
    ]


def _before(ablations: Sequence[dict[str, Any]], measure: str) -> str:
    return f"{ablations[0]['effects'][measure]['before']:.2f}"


def _triple(effects: dict[str, Any]) -> str:
    return " / ".join(
        f"{effects[measure]['after']:.2f}" for measure in ("relation_loose", "opposite", "shape")
    )


def _range(rows: Sequence[dict[str, Any]], key: str, form: str) -> str:
    """The value of every head, in their order."""
    return ", ".join(form.format(row[key]) for row in rows)


def _span(rows: Sequence[tuple[float, ...]], place: int) -> str:
    """The smallest and the largest of a column."""
    values = [row[place] for row in rows]
    if not values:
        return "-"
    return f"{min(values):.2f} to {max(values):.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
