"""Training on a CUDA device, where the step is recorded once and replayed."""

import pytest
import torch

from attnsearch.models import load_checkpoint, save_checkpoint
from attnsearch.training import Trainer

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")


def test_replayed_steps_are_the_steps_taken_one_by_one(tiny_run, monkeypatch):
    recorded = Trainer(tiny_run, CUDA)
    plain = Trainer(tiny_run, CUDA)

    def backward(batch):
        plain.model.zero_grad(set_to_none=True)
        return plain._loss_and_gradients(*batch)

    monkeypatch.setattr(plain, "_backward", backward)
    for _ in range(10):
        assert recorded.take_step() == pytest.approx(plain.take_step(), rel=1e-3)
    for one, other in zip(recorded.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_a_run_goes_on_from_its_checkpoint(tiny_run, tmp_path):
    straight, stopped = Trainer(tiny_run, CUDA), Trainer(tiny_run, CUDA)
    expected = [straight.take_step() for _ in range(8)]
    first = [stopped.take_step() for _ in range(4)]
    save_checkpoint(stopped.checkpoint(), tmp_path / "checkpoint.pt")
    resumed = Trainer.resume(tiny_run, load_checkpoint(tmp_path / "checkpoint.pt"), CUDA)
    after = [resumed.take_step() for _ in range(4)]
    assert first + after == pytest.approx(expected, rel=1e-3)
