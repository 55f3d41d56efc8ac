"""What the page says of families follows from them."""

import copy
import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def module(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.fixture
def families():
    return json.loads((RESULTS / "families.json").read_text(encoding="utf-8"))["families"]


@pytest.fixture
def models():
    results = json.loads((RESULTS / "relational-heads.json").read_text(encoding="utf-8"))
    return [each for each in results["models"] if not each["name"].startswith("overlap")]


def test_every_model_that_was_clustered_is_packaged(families, models):
    names = {model["name"] for model in models}
    assert {name for family in families for name in family["heads"]} <= names
    assert {family["models"] for family in families} == {len(models)}


def test_what_is_said_of_a_family_follows_its_members(module, families, models):
    said = module("_results_families").families_section
    family = copy.deepcopy(families[0])
    (positions,) = {share["models"] for name, share in family["encoders"].items() if name == "rtep"}
    learned = [
        model["name"]
        for model in models
        if model["encoder"] == "rtep"
        and model["accuracies"]["in_distribution"]["relation_loose"]["value"] > 0.9
    ]
    family["heads"] = {name: ["L0H0"] for name in learned[1:]} | {"rte-atto-seed0": ["L0H1"]}
    *_, finding = said([family], models)
    assert f"in {len(learned) - 1} of the {len(learned)} models" in finding
    assert f"(not in {learned[0]})" in finding
    assert f"in 0 of the {positions - len(learned)} that did not" in finding
    assert finding.endswith("of other encodings (rte-atto-seed0).")
    family["p_value"] = 0.5
    *_, finding = said([family], models)
    assert finding.startswith("No relational family")
