import json
import signal
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from attnsearch.errors import CheckpointError, ConfigError, DivergenceError
from attnsearch.models import load_checkpoint
from attnsearch.training import run, trainer
from attnsearch.training.objectives import noise_batch

CPU = torch.device("cpu")


def train(config, folder, *, resume=False, report=lambda progress: None):
    """A run that is evaluated by its step number."""
    return run.train(
        config,
        folder,
        CPU,
        resume=resume,
        evaluate=lambda checkpoint: {"accuracy": checkpoint.step / 100},
        report=report,
    )


def interrupt_at(step):
    def report(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return report


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_model(folder, other):
    first, second = (load_checkpoint(each / "model.pt") for each in (folder, other))
    for kind in ("weights", "average"):
        expected = getattr(second, kind)
        for name, tensor in getattr(first, kind).items():
            assert torch.equal(tensor, expected[name])


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    """The folder of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(tiny_run, folder)
    return folder


def test_the_log_goes_forward_and_ends_at_the_last_step(finished, tiny_run):
    log = log_of(finished)
    losses = [line for line in log if "loss" in line]
    assert [line["step"] for line in losses] == [4, 6, 8, 12]
    assert all(a["step"] < b["step"] for a, b in pairwise(losses))
    assert all(line["loss"] > 0 and line["steps_per_second"] > 0 for line in losses)
    evaluations = [line for line in log if "accuracy" in line]
    assert evaluations == [{"step": 6, "accuracy": 0.06}, {"step": 12, "accuracy": 0.12}]


def test_the_published_model_has_no_training_state(finished, tiny_run):
    published = load_checkpoint(finished / "model.pt")
    assert published.training_state is None
    assert published.step == tiny_run.steps
    assert published.metrics == [{"step": 6, "accuracy": 0.06}, {"step": 12, "accuracy": 0.12}]
    latest = load_checkpoint(finished / "checkpoint.pt")
    assert latest.training_state is not None
    for name, tensor in published.average.items():
        assert torch.equal(tensor, latest.average[name])


def test_a_folder_that_holds_a_run_is_not_written_over(finished, tiny_run):
    before = {path: path.read_bytes() for path in finished.iterdir()}
    with pytest.raises(CheckpointError, match="--resume"):
        train(tiny_run, finished)
    assert {path: path.read_bytes() for path in finished.iterdir()} == before


def test_another_run_is_not_resumed(finished, tiny_run):
    other = replace(tiny_run, encoder=replace(tiny_run.encoder, seed=7))
    with pytest.raises(CheckpointError, match="encoder"):
        train(other, finished, resume=True)


@pytest.mark.parametrize("step", [4, 6, 8])
def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_model(finished, tiny_run, tmp_path, step):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run, tmp_path, report=interrupt_at(step))
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == step
    assert not (tmp_path / "model.pt").exists()

    train(tiny_run, tmp_path, resume=True)
    assert_same_model(tmp_path, finished)
    logged = [line["step"] for line in log_of(tmp_path) if "loss" in line]
    assert logged == sorted(set(logged))
    assert logged[-1] == tiny_run.steps


def test_ctrl_c_within_a_step_waits_for_its_end(finished, tiny_run, tmp_path, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return noise_batch(*arguments)

    monkeypatch.setattr(trainer, "noise_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run, tmp_path)
    assert len(calls) == load_checkpoint(tmp_path / "checkpoint.pt").step == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    train(tiny_run, tmp_path, resume=True)
    assert_same_model(tmp_path, finished)


def test_a_resumed_log_drops_what_came_after_the_checkpoint(tiny_run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run, tmp_path, report=interrupt_at(6))
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 8, "loss": 123.0, "steps_per_second": 1.0}\n')
        log.write('{"step": 9, "lo')  # the crash cut this line
    train(tiny_run, tmp_path, resume=True)
    losses = [(line["step"], line["loss"]) for line in log_of(tmp_path) if "loss" in line]
    assert [step for step, _ in losses] == [4, 6, 8, 12]
    assert max(loss for _, loss in losses) < 100


def test_a_run_that_diverges_ends_and_keeps_its_last_sound_state(tiny_run, tmp_path, monkeypatch):
    def spoilt_after_step_5(*arguments):
        batch = noise_batch(*arguments)
        spoilt = spoil.pop(0) if spoil else True
        return batch._replace(image=batch.image * float("nan")) if spoilt else batch

    spoil = [False] * 5
    monkeypatch.setattr(trainer, "noise_batch", spoilt_after_step_5)
    with pytest.raises(DivergenceError, match="loss of step 6 is nan"):
        train(tiny_run, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 4
    assert [line["step"] for line in log_of(tmp_path / "run")] == [4]


def test_resuming_a_finished_run_changes_nothing(finished, tiny_run, tmp_path):
    before = (finished / "log.jsonl").read_text()
    again = train(tiny_run, finished, resume=True)
    assert again.step == tiny_run.steps
    assert (finished / "log.jsonl").read_text() == before


def test_a_run_stopped_before_its_last_evaluation_makes_up_for_it(finished, tiny_run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run, tmp_path, report=interrupt_at(tiny_run.steps))
    train(tiny_run, tmp_path, resume=True)
    assert log_of(tmp_path)[-1] == log_of(finished)[-1]
    assert_same_model(tmp_path, finished)


def test_resume_begins_where_there_is_nothing_yet(tiny_run, tmp_path):
    assert train(tiny_run, tmp_path / "new", resume=True).step == tiny_run.steps


@pytest.fixture(scope="module")
def followed(tiny_run):
    """The run with snapshots after steps 2, 4, 7, 9 and 12."""
    return replace(tiny_run, snapshots=5)


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*.pt") if p.name != "checkpoint.pt"}


@pytest.fixture(scope="module")
def finished_followed(followed, tmp_path_factory):
    """The folder of that run."""
    folder = tmp_path_factory.mktemp("runs") / "followed"
    train(followed, folder)
    return folder


def test_snapshots_are_spread_evenly_and_change_nothing_else(finished, finished_followed):
    found = sorted((finished_followed / "snapshots").iterdir())
    assert [path.name for path in found] == [f"step-{step:06d}.pt" for step in (2, 4, 7, 9, 12)]
    assert [load_checkpoint(path).step for path in found] == [2, 4, 7, 9, 12]
    assert_same_model(finished, finished_followed)
    assert not (finished / "snapshots").exists()
    last, model = load_checkpoint(found[-1]), load_checkpoint(finished / "model.pt")
    assert last.weights == {}
    assert all(torch.equal(last.average[k], model.average[k].half()) for k in model.average)
    assert last.metrics == model.metrics


@pytest.mark.parametrize("step", [2, 4, 6, 7, 12])
def test_a_run_resumed_at_or_across_a_snapshot_leaves_the_same_files(
    finished_followed, followed, tmp_path, step
):
    with pytest.raises(KeyboardInterrupt):
        train(followed, tmp_path, report=interrupt_at(step))
    train(followed, tmp_path, resume=True)
    assert files_of(tmp_path) == files_of(finished_followed)


def test_more_snapshots_than_steps_are_refused(tiny_run):
    for snapshots in (-1, 13):
        with pytest.raises(ConfigError, match="snapshots"):
            replace(tiny_run, snapshots=snapshots)
