import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from attnsearch.encoders import EncoderKind
from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.models import Objective, load_checkpoint, load_pixart, save_checkpoint
from attnsearch.models.pixart import find_pixart
from attnsearch.task.spec import PRESETS


def save(content, folder, name="model.pth"):
    torch.save(content, folder / name)
    return folder / name


def load(path, **options):
    return load_pixart(path, encoder=EncoderKind.RTEP, **options)


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_the_average_is_preferred_to_the_weights(pixart_weights, tmp_path):
    trained, averaged = pixart_weights(seed=1), pixart_weights(seed=2)
    path = save({"state_dict": trained, "state_dict_ema": averaged, "epoch": 4000}, tmp_path)
    assert torch.equal(load(path).average["final_table"], averaged["final_layer.scale_shift_table"])


@pytest.mark.parametrize("average", [None, {}])
def test_a_file_without_an_average_gives_its_weights(pixart_weights, average, tmp_path):
    weights = pixart_weights()
    path = save({"state_dict": weights, "state_dict_ema": average}, tmp_path)
    assert torch.equal(load(path).average["final_table"], weights["final_layer.scale_shift_table"])


def test_the_wrapping_the_order_and_the_prefix_do_not_matter(pixart_weights, tmp_path):
    weights = pixart_weights()
    expected = load(save({"state_dict": weights}, tmp_path))
    prefixed = {f"module.{name}": weights[name] for name in sorted(weights, reverse=True)}
    save_file(weights, tmp_path / "model.safetensors")
    for path in (
        save(weights, tmp_path, "bare.pth"),
        save({"state_dict": prefixed}, tmp_path, "prefixed.pth"),
        tmp_path / "model.safetensors",
    ):
        loaded = load(path)
        assert loaded.model == expected.model
        assert all(torch.equal(expected.average[k], t) for k, t in loaded.average.items())
        assert loaded.digest != expected.digest


def test_a_paper_file_is_an_epsilon_model_of_the_papers_task(pixart_weights, tmp_path):
    path = save({"state_dict_ema": pixart_weights()}, tmp_path, "epoch_50_step_2000.pth")
    checkpoint = load(path)
    assert checkpoint.objective is Objective.EPSILON
    assert checkpoint.task == PRESETS["paper"]
    assert checkpoint.step == 2000
    assert checkpoint.weights == {}
    encoder = checkpoint.encoder
    assert (encoder.kind, encoder.channels, encoder.text_length) == (EncoderKind.RTEP, 32, 20)


def test_a_larger_image_has_the_papers_task_drawn_larger(pixart_weights, tmp_path):
    weights = pixart_weights(depth=1, grid=32, text_length=120)
    checkpoint = load_pixart(save(weights, tmp_path), encoder=EncoderKind.T5, source="folder")
    paper = PRESETS["paper"]
    assert checkpoint.task == replace(
        paper, canvas=512, radius=64, axis_tolerance=20, text_length=120
    )
    assert checkpoint.encoder.source == "folder"
    assert checkpoint.step == 0


def test_it_can_be_kept_in_our_own_format(pixart_weights, tmp_path):
    converted = load(save(pixart_weights(scale=2.0), tmp_path))
    save_checkpoint(converted, tmp_path / "model.pt")
    kept = load_checkpoint(tmp_path / "model.pt")
    assert (kept.model, kept.encoder, kept.task) == (
        converted.model,
        converted.encoder,
        converted.task,
    )
    expected, model = converted.build(), kept.build()
    assert torch.equal(model.position, expected.position)
    assert all(torch.equal(model.state_dict()[k], t) for k, t in expected.state_dict().items())


def test_an_encoder_that_needs_a_source_is_not_built_without(pixart_weights, tmp_path):
    with pytest.raises(ConfigError, match="needs a source"):
        load_pixart(save(pixart_weights(), tmp_path), encoder=EncoderKind.T5)


def test_heads_of_another_width_must_be_said(pixart_weights, tmp_path):
    path = save(pixart_weights(depth=1, width=144), tmp_path)
    with pytest.raises(ConfigError, match="width of 144"):
        load(path)
    assert load(path, heads=2).model.heads == 2
    with pytest.raises(ConfigError, match="multiple of 4 and of the 5 heads"):
        load(path, heads=5)


def test_our_own_reader_names_the_command_that_reads_it(pixart_weights, tmp_path):
    path = save({"state_dict_ema": pixart_weights()}, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert f"{path} is a PixArt checkpoint" in str(caught.value)
    assert f"attnsearch scan {path} --encoder" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["blocks.0.attn.q_norm.weight", "blocks.7.mlp.fc1.bias", "blocks.2.attn.sr.weight", "extra"],
)
def test_a_tensor_too_many_is_named(pixart_weights, name, tmp_path):
    path = save(pixart_weights() | {name: torch.zeros(3)}, tmp_path)
    assert f"{name} is no part of" in refusal(path)


@pytest.mark.parametrize(
    "value", [None, 3, [1.0], torch.zeros(20, 32, dtype=torch.long), torch.eye(20).to_sparse()]
)
def test_what_is_no_tensor_of_numbers_is_named(pixart_weights, value, tmp_path):
    path = save(pixart_weights() | {"y_embedder.y_embedding": value}, tmp_path)
    assert "y_embedder.y_embedding" in refusal(path)


@pytest.mark.parametrize("condition", ["csize_embedder", "ar_embedder"])
def test_micro_conditions_are_refused_by_name(pixart_weights, condition, tmp_path):
    weights = pixart_weights() | {f"{condition}.mlp.0.weight": torch.zeros(21, 256)}
    message = refusal(save({"state_dict": weights}, tmp_path))
    assert f"({condition})" in message
    assert "1024" in message


@pytest.mark.parametrize(
    "content",
    [None, [1], {"state_dict": {"x_embedder.proj.weight": torch.zeros(3)}}, {"state_dict": None}],
    ids=str,
)
def test_another_architecture_is_said_to_be_one(content, tmp_path):
    assert find_pixart(content) is None
    assert "is not a PixArt checkpoint" in refusal(save(content, tmp_path))


class Hostile:
    """Makes a file where it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_code_in_the_file_is_refused_and_does_not_run(pixart_weights, tmp_path):
    content = {"state_dict_ema": pixart_weights(), "optimizer": Hostile(tmp_path / "ran")}
    assert "would run code" in refusal(save(content, tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(pixart_weights, name, share, tmp_path):
    weights, path = pixart_weights(depth=1), tmp_path / name
    if name.endswith("safetensors"):
        save_file(weights, path)
    else:
        torch.save(weights, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "is not a checkpoint" in refusal(path)


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "none.pth").startswith("no such file")
