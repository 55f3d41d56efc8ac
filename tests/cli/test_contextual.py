"""A model conditioned on a contextual encoder goes the whole way, from training to a ranking."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attnsearch.cli import app
from attnsearch.encoders import EncoderKind
from attnsearch.errors import ConfigError
from attnsearch.experiments import Experiment, training_config
from attnsearch.models import Objective, load_checkpoint
from attnsearch.store import open_scans


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_pretrained_encoder_decides_width_and_length_of_the_text():
    minilm = Experiment(name="one", encoder=EncoderKind.MINILM, size="atto", seed=0)
    config = training_config(minilm)
    assert config.model.text_channels == config.encoder.channels == 384
    # The longest wording has eleven words; [CLS] and [SEP] make it thirteen.
    assert config.model.text_length == config.encoder.text_length == 13
    paper = training_config(
        replace(
            minilm,
            size="nano",
            task="paper",
            objective=Objective.EPSILON,
            encoder_dtype="bfloat16",
        )
    )
    assert paper.model.text_length == paper.task.text_length == 20
    assert paper.encoder.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("encoder", "options", "reason"),
    [
        ("t5", {}, "needs a source"),
        ("t5", {"encoder_source": "x/y", "encoder_dtype": "float16"}, "overflow"),
        ("rtep", {"encoder_source": "x/y"}, "takes no source"),
    ],
)
def test_an_encoder_that_cannot_be_is_refused_before_anything_is_read(encoder, options, reason):
    with pytest.raises(ConfigError, match=reason):
        Experiment(name="one", encoder=EncoderKind(encoder), size="atto", seed=0, **options)


def test_a_contextual_model_is_trained_scanned_and_ranked(tmp_path: Path):
    trained = run(
        "train", "--encoder", "minilm", "--size", "atto", "--steps", 20, "--out", tmp_path / "run"
    )
    assert trained.exit_code == 0, trained.output
    checkpoint = tmp_path / "run" / "model.pt"
    assert load_checkpoint(checkpoint).encoder.kind == "minilm"
    assert "minilm" in run("info", checkpoint).stdout
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(
        "red square is above blue circle\nred circle is diagonally up and left from blue square\n"
        "blue square is above red circle\nblue circle is to the right of red square\n"
    )
    store = tmp_path / "s.zarr"
    scanned = run(
        "scan", checkpoint, "--store", store, "--prompts", prompts, "--seeds", 2, "--steps", 3
    )
    assert scanned.exit_code == 0, scanned.output
    (scan,) = open_scans(store).values()
    # The constant basis column of a role holds its mass; the mass of all roles is one.
    mass = scan["sketch"].isel(basis=0).sum("role") / scan.attrs["grid"][0]
    assert float(abs(mass - 1).max()) < 0.01
    ranked = run("rank", store, "--metric", "relational", "--top", 16, "--json")
    assert ranked.exit_code == 0, ranked.output
    assert len(json.loads(ranked.stdout)) == 16
