"""Checkpoints of anyone, given to every command that reads one."""

import io
from dataclasses import replace

import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as safe_bytes

from attnsearch.models import save_checkpoint

FEW = examples(8, deep=120)
COMMANDS = (
    ("info",),
    ("info", "--json"),
    ("rank", "--metric", "qk-relational"),
    ("evaluate", "--seeds", 1, "--steps", 1),
    ("circuit", "--images", 0),
)
PIXART = (
    ("info",),
    ("rank", "--metric", "qk-relational", "--encoder", "rtep"),
    ("rank", "--metric", "qk-relational", "--encoder", "rte", "--heads", 2),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def content(tiny_checkpoint, tmp_path_factory):
    """What is in a checkpoint that training could go on from."""
    path = tmp_path_factory.mktemp("good") / "model.pt"
    state = {"settings": {"seed": 0, "batch": 64}, "generator": torch.Generator().get_state()}
    save_checkpoint(replace(tiny_checkpoint, training_state=state), path)
    return torch.load(path, weights_only=True)


def written(content: object, *, safe: bool = False) -> bytes:
    if safe:
        return safe_bytes(content)
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def regions(data: bytes) -> tuple[tuple[int, int], ...]:
    """Where a torch file has its table of contents and its directory."""
    table = data.find(b"data.pkl")
    return (0, 200), (table, data.find(b"PK\3\4", table)), (len(data) - 2500, len(data))


@pytest.fixture(scope="module")
def pixart(pixart_weights):
    return pixart_weights(depth=1, grid=4, text_channels=16)


@given(st.data())
@FEW
def test_damaged_bytes_of_a_checkpoint(lawful, damaged, place, content, data):
    whole = written(content)
    path = place / "model.pt"
    path.write_bytes(data.draw(damaged(whole, regions(whole))))
    verb, *options = data.draw(st.sampled_from(COMMANDS))
    lawful(place, verb, path, *options)


@given(st.data())
@FEW
def test_other_values_in_a_checkpoint(lawful, spoilt, place, content, data):
    path = place / "model.pt"
    path.write_bytes(written(data.draw(spoilt(content, tensors=True))))
    verb, *options = data.draw(st.sampled_from(COMMANDS))
    lawful(place, verb, path, *options)


@given(st.data())
@FEW
def test_other_values_in_its_header(lawful, spoilt, place, content, data):
    path = place / "model.pt"
    field = data.draw(st.sampled_from(["model", "encoder", "task", "metrics", "objective", "step"]))
    path.write_bytes(written(content | {field: data.draw(spoilt(content[field]))}))
    verb, *options = data.draw(st.sampled_from(COMMANDS))
    lawful(place, verb, path, *options)


@given(st.data())
@FEW
def test_damaged_bytes_of_a_pixart_file(lawful, damaged, place, pixart, data):
    safe = data.draw(st.booleans())
    whole = written(pixart if safe else {"state_dict_ema": pixart}, safe=safe)
    path = place / ("model.safetensors" if safe else "model.pth")
    header = ((0, 8), (8, 2000)) if safe else regions(whole)
    path.write_bytes(data.draw(damaged(whole, header)))
    verb, *options = data.draw(st.sampled_from(PIXART))
    lawful(place, verb, path, *options)


@given(st.data())
@FEW
def test_other_values_in_a_pixart_file(lawful, spoilt, place, pixart, data):
    wrapping = {"state_dict": pixart, "state_dict_ema": None, "epoch": 3, "step": 9}
    path = place / "epoch_3_step_9.pth"
    path.write_bytes(written(data.draw(spoilt(wrapping, tensors=True))))
    verb, *options = data.draw(st.sampled_from(PIXART))
    lawful(place, verb, path, *options)
