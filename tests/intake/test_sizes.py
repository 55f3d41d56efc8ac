"""Networks that may not grow larger than their files."""

import pytest
import torch
from torch import nn

from attnsearch.intake import sizes
from attnsearch.intake.sizes import TooLargeError, within_weights


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(10**6))
    (tmp_path / "config.json").write_bytes(bytes(10**8))
    return tmp_path


def test_a_network_of_the_size_of_its_files_may_be_made_and_filled(folder):
    with within_weights(folder):
        model = nn.Sequential(nn.Linear(500, 1000), nn.Linear(1000, 500))
        model.load_state_dict({name: w * 2 for name, w in model.state_dict().items()}, assign=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(10**6, 10**6, device="meta"),
        lambda: nn.ModuleList(nn.Linear(1000, 1000, device="meta") for _ in range(10**6)),
        lambda: nn.ModuleList(nn.Identity() for _ in range(10**7)),
        lambda: nn.Module().register_buffer("b", torch.empty(10**9, device="meta")),
    ],
)
def test_a_network_that_is_far_larger_is_stopped_on_the_way(make, folder, monkeypatch):
    monkeypatch.setattr(sizes, "MAX_PARTS", 2000)
    with pytest.raises(TooLargeError, match="far larger than its files"), within_weights(folder):
        make()


def test_afterwards_networks_of_any_size_may_be_made(folder):
    with pytest.raises(TooLargeError), within_weights(folder):
        nn.Linear(10**6, 10**6, device="meta")
    nn.Linear(10**6, 10**6, device="meta")
