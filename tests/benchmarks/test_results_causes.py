"""What the page says of causes and circuits follows from the numbers."""

import copy
import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("_results_causes")


@pytest.fixture(scope="module")
def results():
    return json.loads((RESULTS / "relational-heads.json").read_text(encoding="utf-8"))


def loss(head, change):
    return {
        "set": "alone",
        "heads": [head],
        "effects": {"relation_loose": {"difference": -change}},
    }


PAPER = {"relation": 0.67, "relation_without": 0.33}
MODEL = {
    "heads": [
        {"layer": 0, "head": 0, "score": -0.9},
        {"layer": 0, "head": 1, "score": 0.5},
        {"layer": 1, "head": 0, "score": 0.1},
    ],
    "heads_from_weights": [
        {"layer": 0, "head": 0, "projection": 1.0},
        {"layer": 0, "head": 1, "projection": 2.0},
        {"layer": 1, "head": 0, "projection": -3.0},
    ],
}


def test_heads_that_matter_as_they_rank_agree_wholly(module):
    rows = [loss("L0H0", 0.6), loss("L0H1", 0.3), loss("L1H0", 0.1)]
    found = module.rank_against_effect(MODEL, rows)
    assert (found["first"], found["worst"], found["rank"]) == ("L0H0", "L0H0", 1)
    assert found["maps"] == pytest.approx(1)
    assert found["weights"] == pytest.approx(-1)
    assert found["share"] == pytest.approx(0.6)


def test_a_head_that_harms_from_the_back_is_told(module):
    rows = [loss("L0H0", 0.0), loss("L0H1", -0.2), loss("L1H0", 0.5)]
    found = module.rank_against_effect(MODEL, rows)
    assert (found["first"], found["first_loss"]) == ("L0H0", 0)
    assert (found["worst"], found["rank"], found["share"]) == ("L1H0", 3, 1)


def test_where_nothing_is_lost_nothing_correlates(module):
    found = module.rank_against_effect(MODEL, [loss(h, 0.0) for h in ("L0H0", "L0H1", "L1H0")])
    assert found["maps"] is None
    assert found["share"] == 0


def test_all_models_of_the_page_were_ablated_and_read(results):
    names = {m["name"] for m in results["models"] if not m["name"].startswith("overlap")}
    for part in ("causes", "circuits"):
        assert {each["name"] for each in results[part]["models"]} == names


def test_what_is_said_of_swapping_counts_the_models(module, results):
    models = [m for m in results["models"] if not m["name"].startswith("overlap")]
    causes = copy.deepcopy(results["causes"])
    for model in causes["models"]:
        for row in model["ablations"]:
            if row["mode"] == "opposite":
                row["effects"]["opposite"]["after"] = 0.1
                row["effects"]["shape"]["after"] = 0.95
    text = " ".join(module.causes_sections(causes, results["circuits"], models, PAPER))
    family = sum(any(r["set"] == "family" for r in m["ablations"]) for m in causes["models"])
    assert f"images of 0 of {family} models, and shapes stay in {family}." in " ".join(text.split())


def steering(same, swapped, reordered):
    return {
        name: {"target": {"value": share}, "asked": {"value": 1 - share}}
        for name, share in (("same", same), ("swapped", swapped), ("reordered", reordered))
    }


def test_a_tag_is_of_colours_only_where_every_lender_says_so(module):
    assert module._is_of_colours(steering(1.0, 0.0, 0.05))
    assert not module._is_of_colours(steering(1.0, 1.0, 1.0))  # of object 1
    assert not module._is_of_colours(steering(0.0, 1.0, 0.0))  # of a shape
    assert not module._is_of_colours(steering(0.5, 0.0, 0.0))


def test_words_are_needed_where_relations_are_lost_without_them(module, results):
    circuits = copy.deepcopy(results["circuits"])
    read = [model["words"] for model in circuits["models"] if model["words"]]
    for words in read:
        for hidden in words.values():
            hidden["relation_loose"] = 0.9
    for words in read[:3]:
        words["relation phrase"]["relation_loose"] = 0.1
    for words in read[1:5]:
        words["both colours"]["relation_loose"] = 0.2
    text = " ".join(" ".join(module._words_section(circuits)).split())
    assert f"show the relation in 3 of {len(read)} models." in text
    assert "In 2 of those it is so without the colours, too, and in 0 without the shapes." in text
