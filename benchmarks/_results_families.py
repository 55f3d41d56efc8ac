"""The section of docs/results.md on families of heads."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from _results_claims import LEARNED
from _results_text import paragraph, table

SURE: Final = 0.05
"""Largest p-value of a family whose heads are listed by model."""
SHOWN: Final = 8

Family = dict[str, Any]


def family_section(
    families: Sequence[dict[str, Any]], models: Sequence[dict[str, Any]]
) -> list[str]:
    if not families:
        return []
    by_family, by_model, finding = families_section(families, models)
    return [
        "## Families: the same head in other models",
        "",
        *paragraph(
            "`attnsearch cluster` joins heads of different models that are each other's most",
            "similar ([how](decisions/0009-families-of-heads.md)). p: chance that unrelated heads",
            "make a family in as many models; beside an encoder, chance that so many of the",
            "family's models have it. Families of p above 0.05 may be chance.",
        ),
        *table(by_family[0], by_family[1:]),
        "",
        *paragraph(finding),
        *table(by_model[0], by_model[1:]),
        "",
        "![All heads on a plane, by family, encoder and depth](heads.png)",
        "",
    ]


def families_section(
    families: Sequence[Family], models: Sequence[dict[str, Any]]
) -> tuple[list[list[str]], list[list[str]], str]:
    """Rows by family, rows by model, and what they say; the first of each is the header."""
    encoders = list(families[0]["encoders"])
    by_family = [["family", "what it does", "models", "cohesion", "p", "exemplar", *encoders]]
    for family in families[:SHOWN]:
        by_family.append(
            [
                str(family["family"]),
                family["name"],
                f"{family['coverage']} of {family['models']}",
                f"{family['cohesion']:.2f}",
                f"{family['p_value']:.2g}",
                family["exemplar"],
                *(
                    f"{share['coverage']} of {share['models']} (p {share['p_value']:.2g})"
                    for share in family["encoders"].values()
                ),
            ]
        )
    sure = [family for family in families if family["p_value"] < SURE]
    by_model = [["model", "relation", *(f"family {family['family']}" for family in sure)]]
    for model in models:
        cells = [", ".join(family["heads"].get(model["name"], ["-"])) for family in sure]
        by_model.append([model["name"], f"{_relation(model):.3f}", *cells])
    return by_family, by_model, _finding(sure, models)


def _finding(sure: Sequence[Family], models: Sequence[dict[str, Any]]) -> str:
    """Whether a relational family is in every model that learned relations, and in no other."""
    relational = [family for family in sure if family["name"].startswith("relational")]
    if not relational:
        return "No relational family covers more models than unrelated heads would."
    said = []
    for family in relational:
        inside = set(family["heads"])
        learned = {m["name"] for m in models if _relation(m) >= LEARNED}
        positions = {m["name"] for m in models if m["encoder"] == "rtep"}
        said.append(
            f"Family {family['family']} ({family['name']}) is in "
            f"{len(inside & positions & learned)} of the {len(positions & learned)} models with "
            "positions that learned relations"
            + _missing(positions & learned - inside)
            + f", in {len(inside & positions - learned)} of the {len(positions - learned)} that "
            f"did not, and in {len(inside - positions)} of the "
            f"{len({m['name'] for m in models} - positions)} models of other encodings"
            + _listed(inside - positions)
            + "."
        )
    return " ".join(said)


def _missing(names: Iterable[str]) -> str:
    listed = sorted(names)
    return f" (not in {', '.join(listed)})" if listed else ""


def _listed(names: Iterable[str]) -> str:
    listed = sorted(names)
    return f" ({', '.join(listed)})" if listed else ""


def _relation(model: dict[str, Any]) -> float:
    return float(model["accuracies"]["in_distribution"]["relation_loose"]["value"])
