"""Folders of save_pretrained, before the libraries read them."""

import json
import os
from pathlib import Path

import pytest
import torch

from attnsearch.errors import CheckpointError
from attnsearch.intake import folders
from attnsearch.intake.folders import check_folder


@pytest.fixture
def folder(tmp_path):
    """One with a file of every kind."""
    tables = {
        "config.json": {"hidden_size": 64, "rope_theta": 10**7, "eps": 1e-6, "names": ["a", True]},
        "tokenizer_config.json": {"model_max_length": int(1e30), "extra_ids": 100},
        "scheduler_config.json": {"num_train_timesteps": 1000, "lambda_min_clipped": -1e400},
        "model.safetensors.index.json": {"weight_map": {"a": "model-1.safetensors"}},
        "tokenizer.json": {"model": {"vocab": {"a": 10**12}}},
    }
    for name, table in tables.items():
        (tmp_path / name).write_text(json.dumps(table))
    (tmp_path / "merges.txt").write_text("a b")
    (tmp_path / "model-1.safetensors").write_bytes(bytes(100))
    (tmp_path / "deeper").mkdir()
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_folder(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert message.isprintable()
    return message


def test_a_folder_as_the_libraries_write_it_passes(folder):
    check_folder(folder)


def test_links_to_files_pass_and_links_to_nowhere_do_not(folder):
    (folder / "config.json").rename(folder / "blob")
    (folder / "config.json").symlink_to("blob")
    check_folder(folder)
    (folder / "blob").unlink()
    assert "config.json cannot be used: No such file" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin", "any"])
def test_pipes_and_devices_are_refused(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert f"{name} cannot be used: Not a regular file" in refusal(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert f"{name} cannot be used: Not a regular file" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("config.json", "MAX_TABLE"), ("tokenizer.json", "MAX_TEXT"), ("merges.txt", "MAX_TEXT")],
)
def test_texts_larger_than_any_are_refused(folder, name, limit):
    with (folder / name).open("r+b") as file:
        file.truncate(getattr(folders, limit) + 1)
    assert f"{name} cannot be used: it is larger than" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "table", "reason"),
    [
        ("config.json", {"d_model": 10**9}, "d_model is 1000000000, more than"),
        ("config.json", {"layers": [1, {"deep": [-(10**9)]}]}, "deep is -1000000000"),
        ("config.json", {"sample_size": 5000}, "sample_size is 5000"),
        ("config.json", {"sample_size": [64, 5000]}, "sample_size is 5000"),
        ("tokenizer_config.json", {"extra_ids": 10**7}, "extra_ids is 10000000"),
        ("scheduler_config.json", {"num_train_timesteps": 10**7}, "num_train_timesteps"),
        ("config.json", {"\x1b[2J\n": 10**9}, "x1b"),
        ("config.json", [], "it is no table"),
        ("config.json", None, "it is no table"),
    ],
    ids=str,
)
def test_absurd_numbers_are_refused_by_their_key(folder, name, table, reason):
    (folder / name).write_text(json.dumps(table))
    assert reason in refusal(folder)


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/passwd", "..", "a/b.safetensors", "model.txt", "", 3, None, []],
    ids=str,
)
def test_weights_outside_the_folder_or_of_no_kind_are_refused(folder, name):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "is no name of a weight file in this folder" in refusal(folder)


@pytest.mark.parametrize("table", [[], {}, {"weight_map": None}, {"weight_map": ["a"]}], ids=str)
def test_an_index_of_another_form_is_refused(folder, table):
    (folder / "model.safetensors.index.json").write_text(json.dumps(table))
    assert "no table of weight files" in refusal(folder)


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


PICKLES = {
    "pytorch_model.bin": ("model.safetensors", "diffusion_pytorch_model.safetensors"),
    "pytorch_model-1-of-2.bin": ("model.safetensors.index.json", "pytorch_model.safetensors"),
    "diffusion_pytorch_model.bin": ("diffusion_pytorch_model.safetensors", "model.safetensors"),
    "diffusion_pytorch_model.fp16.bin": (
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.fp16.safetensors",
    ),
}
"""Names of pickled weights: a file that is read in their place, and one that is not."""


@pytest.fixture
def bare(folder):
    """Without weights."""
    (folder / "model.safetensors.index.json").unlink()
    return folder


@pytest.mark.parametrize("name", [*PICKLES, "adapter_model.bin"])
def test_pickled_weights_pass_only_if_they_hold_nothing_else(bare, name):
    torch.save({"a": torch.ones(3)}, bare / name)
    check_folder(bare)
    torch.save({"a": Hostile(bare / "ran")}, bare / name)
    assert f"{name} cannot be used: it names " in refusal(bare)
    torch.save({"a": torch.ones(3)}, bare / name, _use_new_zipfile_serialization=False)
    assert "of another kind" in refusal(bare)
    assert not (bare / "ran").exists()


@pytest.mark.parametrize("name", PICKLES)
def test_pickled_weights_that_nobody_reads_do_not_matter(bare, name):
    instead, other = PICKLES[name]
    torch.save({"a": Hostile(bare / "ran")}, bare / name)
    (bare / other).write_bytes(b"")
    assert "it names" in refusal(bare)
    (bare / instead).write_text('{"weight_map": {}}')
    check_folder(bare)


def test_other_pickles_of_a_training_do_not_matter(folder):
    torch.save({"a": Hostile(folder / "ran")}, folder / "training_args.bin")
    check_folder(folder)
