"""docs/results.md says what was measured of the packaged models, and nothing else."""

import copy
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attnsearch.task.spec import PRESETS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def module(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    # transformers looks for a package that is called like one of the scripts there.
    monkeypatch.setitem(sys.modules, "kernels", None)
    return importlib.import_module


@pytest.fixture
def results():
    path = ROOT / "benchmarks" / "results" / "relational-heads.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_results_are_those_of_the_packaged_models(module, results):
    gathered = json.loads(json.dumps(module("relational_heads").gather()))
    for ours, stored in zip(gathered["models"], results["models"], strict=True):
        # Computed from the weights, so to rounding only.
        now, then = ours.pop("heads_from_weights"), stored.pop("heads_from_weights")
        assert [head["projection"] for head in now] == pytest.approx(
            [head["projection"] for head in then], abs=1e-3
        )
    assert gathered == results


def test_the_page_is_the_one_its_results_make(module, results):
    page = module("_results_page").page(results)
    assert page == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


def test_every_picture_of_the_page_is_there(results):
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    followed = [
        model["name"].startswith("overlap") for model in results["models"] if model["emergence"]
    ]
    assert ("(overlap.png)" in text) == any(followed)
    for name in ("emergence.png", "overlap.png"):
        assert (f"({name})" in text) == (ROOT / "docs" / name).exists()


def test_a_verdict_follows_what_was_measured(module, results):
    claims, paper = module("_results_claims"), module("_results_page").PAPER
    (packaged,) = (model for model in results["models"] if model["name"] == "rtep-atto-seed0")
    model = copy.deepcopy(packaged)
    returns = "They have a relational head, which returns across sizes and seeds"

    def holds():
        (claim,) = (c for c in claims.claims([model], paper) if c.paper == returns)
        return claim.verdict

    assert holds() == "agrees"
    for head in model["heads"]:
        head["score"] /= 10
    assert holds() == "differs"


def test_what_does_not_last_was_not_reached(module):
    since = module("_results_claims").since
    shares = [None, 0.9, 0.2, 0.8, 0.9]
    rows = [{"step": step, "x": share} for step, share in enumerate(shares)]
    assert since(rows, "x", 0.75) == 3
    assert since(rows, "x", 0.85) == 4
    assert since(rows, "x", 0.95) is None


def test_without_word_order_the_splits_are_pooled(module, results):
    (model,) = (each for each in results["models"] if each["name"] == "rte-femto-seed1")
    shares = module("_results_claims").pooled(model)
    # The four orders of the same words are one prompt: every second image binds right.
    assert shares["binding"] == pytest.approx(shares["shape"] / 2, abs=0.01)


def test_only_captions_with_all_colours_are_pooled(module, results):
    pooled, model = module("_results_claims").pooled, copy.deepcopy(results["models"][0])
    before = pooled(model)
    bare = {name: {"value": 0.0, "count": 48} for name in ("shape", "binding", "relation_loose")}
    model["accuracies"]["in_distribution_no_colours"] = bare
    assert pooled(model) == before


def test_the_page_takes_models_of_any_task(module, results):
    odd = copy.deepcopy(results)
    for model in odd["models"]:
        del model["accuracies"]["held_out"], model["relation_given_binding"]["held_out"]
    odd["models"][0]["best_head_by_step"] = [0.5] * 3
    page = module("_results_page").page(odd | {"missing": [], "outdated": []})
    assert "Not trained yet" not in page


def test_without_models_of_an_encoding_nothing_is_claimed_of_it(module, results):
    claims, paper = module("_results_claims"), module("_results_page").PAPER
    rte = [model for model in results["models"] if model["encoder"] == "rte"]
    assert {c.paper for c in claims.claims(rte, paper)} < {
        c.paper for c in claims.claims(results["models"], paper)
    }
    assert claims.claims([], paper) == []


def test_objects_kept_apart_overlap_less(module):
    overlap = module("relational_heads").overlap
    near, far, apart = (
        overlap(replace(PRESETS["small"], min_distance=distance)) for distance in (0.9, 1.6, 2.9)
    )
    assert near["boxes"] > far["boxes"] > apart["boxes"]
    assert near["hidden"] > far["hidden"] > apart["hidden"]
    # Two boxes of side 2 r whose centres are more than 2 sqrt(2) r apart cannot overlap.
    assert apart == {"boxes": 0.0, "hidden": 0.0}
