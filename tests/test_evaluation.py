"""Captions that leave out colours are evaluated apart from those that name them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from attnsearch.cli import app
from attnsearch.evaluation import MEASURES
from attnsearch.experiments import quick_accuracies
from attnsearch.models import Checkpoint, save_checkpoint
from attnsearch.sampling import SamplerConfig

COUNTS = {
    "in_distribution": 84,
    "held_out": 12,
    "in_distribution_no_colour_1": 84,
    "held_out_no_colour_1": 12,
    "in_distribution_no_colour_2": 84,
    "held_out_no_colour_2": 12,
    # The text of a combination that is held out was trained on in the other colours.
    "in_distribution_no_colours": 48,
}
ASKED = {
    (split, measure)
    for split in COUNTS
    for measure in MEASURES
    if (split, measure) != ("in_distribution_no_colours", "colour")
}


@pytest.fixture(scope="module")
def forgetful(tiny_checkpoint: Checkpoint) -> Checkpoint:
    """A model whose training left out colours."""
    return replace(tiny_checkpoint, task=replace(tiny_checkpoint.task, colour_dropout=0.5))


def test_every_naming_has_splits_of_its_own(forgetful: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "forgetful.pt"
    save_checkpoint(forgetful, path)
    words = ["evaluate", str(path), "--seeds", "1", "--steps", "1"]
    result = CliRunner().invoke(app, [*words, "--json"])
    asked = [row for row in json.loads(result.stdout) if row["value"] is not None]
    assert {(row["split"], row["measure"]) for row in asked} == ASKED
    assert all(row["count"] == COUNTS[row["split"]] for row in asked)
    lines = CliRunner().invoke(app, words).stdout.splitlines()
    unasked = [" ".join(line.split()) for line in lines if "not asked" in line]
    assert unasked == ["colour in distribution, no colours - not asked 0"]
    assert len(lines) == 2 + len(COUNTS) * len(MEASURES)


def test_a_quick_evaluation_has_a_number_for_all_that_is_asked(forgetful: Checkpoint) -> None:
    found = quick_accuracies(forgetful, SamplerConfig(steps=1), torch.device("cpu"))
    assert found.keys() == {f"{split}_{measure}" for split, measure in ASKED}
    assert all(isinstance(value, float) for value in found.values())
