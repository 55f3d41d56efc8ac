"""Reading files of tensors."""

import os
import tarfile

import pytest
import torch
from safetensors.torch import save_file

from attnsearch.errors import CheckpointError
from attnsearch.models import reading
from attnsearch.models.reading import read_tensors

WEIGHTS = {
    "a": torch.randn(3, 4),
    "b": torch.randn(5).half(),
    "c": torch.randn(2, 2).bfloat16(),
    "d": torch.arange(6),
    "e": torch.zeros(0, 3),
}


def refusal(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    return message


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.any", "model.safetensors"])
def test_tensors_are_read_bit_for_bit(tmp_path, name):
    save = save_file if name.endswith("safetensors") else torch.save
    save(WEIGHTS, tmp_path / name)
    content, digest = read_tensors(tmp_path / name)
    assert content.keys() == WEIGHTS.keys()
    for key, tensor in WEIGHTS.items():
        assert content[key].dtype == tensor.dtype
        assert torch.equal(content[key], tensor)
    assert len(digest) == 64


def test_what_was_read_does_not_follow_the_file(tmp_path):
    """Nor does a file that is cut off later end the process."""
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(10**6)}, path)
    content, _ = read_tensors(path)
    path.write_bytes(b"")
    assert torch.equal(content["a"], torch.ones(10**6))


def test_the_bytes_read_are_those_of_the_digest(tmp_path, monkeypatch):
    """Also where another file takes the place of the first in between."""
    first, second = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    save_file({"a": torch.ones(3)}, first)
    save_file({"a": torch.zeros(3)}, second)
    _, expected = read_tensors(first)

    def replace():
        os.replace(second, first)
        return 2**40

    monkeypatch.setattr(reading, "_memory", replace)
    content, digest = read_tensors(first)
    assert digest == expected
    assert torch.equal(content["a"], torch.ones(3))


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch, name):
    monkeypatch.setattr(reading, "_memory", lambda: 2**36)
    path = tmp_path / name
    path.touch()
    os.truncate(path, 2**40)
    assert "has 1024.0 GiB, and this machine a memory of 64.0 GiB" in refusal(path)


@pytest.mark.parametrize("limit", ["max", "1000"])
def test_the_memory_is_that_of_the_container(tmp_path, monkeypatch, limit):
    (tmp_path / "limit").write_text(limit)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(reading, "_CONTAINER", tmp_path / "limit")
    assert reading._memory() == (whole if limit == "max" else 1000)


def make_dangling(path):
    path.symlink_to("nowhere")


def make_zeros(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "Not a regular file"),
        (os.mkdir, "Is a directory"),
        (make_zeros, "Not a regular file"),
        (make_dangling, "no such file"),
    ],
)
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make, reason, name):
    make(tmp_path / name)
    assert reason in refusal(tmp_path / name)


def test_a_file_of_an_old_torch_says_how_to_bring_it_up_to_date(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    message = refusal(path)
    assert "would run code" in message
    assert "torch before 1.6" in message


def test_a_tar_file_is_refused(tmp_path):
    (tmp_path / "a").touch()
    with tarfile.open(tmp_path / "model.pt", "w") as archive:
        archive.add(tmp_path / "a", "storages")
    assert "is not a checkpoint: it is of another kind" in refusal(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_program_is_refused(tmp_path):
    class Program(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.script(Program()).save(str(tmp_path / "model.pt"))
    assert "is not a checkpoint" in refusal(tmp_path / "model.pt")


def test_too_many_tensors_are_refused(tmp_path, monkeypatch):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    monkeypatch.setattr(reading, "MAX_TENSORS", 4)
    assert "more than 4 tensors" in refusal(tmp_path / "model.safetensors")
