import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnsearch import zoo
from attnsearch.errors import AttnsearchError, ConfigError
from attnsearch.experiments import (
    execute,
    is_finished,
    measure,
    publish,
    run_experiment,
    training_config,
)
from attnsearch.experiments.folder import working_on, write_json
from attnsearch.models import load_checkpoint
from attnsearch.scanning import scan
from attnsearch.store import open_scan
from attnsearch.training import run

CPU = torch.device("cpu")


def files_of(folder: Path):
    """Bytes and time of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def contents(folder: Path):
    """Bytes of every file, the log without its clock."""
    return {
        name: [json.loads(line) | {"steps_per_second": 0} for line in data.splitlines()]
        if name.name == "log.jsonl"
        else data
        for name, (data, _) in files_of(folder).items()
    }


def test_an_experiment_leaves_every_result(finished, experiment):
    assert is_finished(experiment, finished)
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert evaluation["in_distribution"]["relation_loose"]["count"] == 84
    ranking = json.loads((finished / "ranking.json").read_text())
    assert [row["rank"] for row in ranking["heads"]] == [1, 2]
    best = ranking["heads"][0]
    assert best["ci_low"] <= best["score"] <= best["ci_high"]
    assert sum(ranking["best_head_by_step"]) / 2 == pytest.approx(best["score"])
    assert open_scan(finished / "maps.zarr").sizes["sample"] == ranking["samples"] == 96


def test_every_snapshot_is_measured_and_its_maps_are_gone(finished):
    emergence = json.loads((finished / "emergence.json").read_text())
    assert [entry["step"] for entry in emergence] == [1, 3]
    for entry in emergence:
        assert {(row["layer"], row["head"]) for row in entry["heads"]} == {(0, 0), (0, 1)}
        assert all(0 <= row["q_value"] <= 1 for row in entry["heads"])
        assert "held_out_relation_loose" in entry["accuracies"]
    assert sorted(path.name for path in (finished / "snapshots").iterdir()) == [
        "step-000001.pt",
        "step-000003.pt",
    ]


def test_running_a_finished_experiment_again_does_nothing(finished, experiment):
    before = files_of(finished)
    news = []
    run_experiment(experiment, finished, CPU, news.append)
    assert news == []
    assert files_of(finished) == before


def test_two_processes_do_not_work_on_one_run(finished, experiment):
    with working_on(finished), pytest.raises(ConfigError, match="another process works on"):
        run_experiment(experiment, finished, CPU)
    run_experiment(experiment, finished, CPU)


STAGES = (
    (execute, "_evaluate"),
    (execute.scanning, "execute_plan"),
    (measure, "ranking"),
    (execute, "_snapshot_facts"),
)


def test_stopped_before_every_stage_it_goes_on_with_it(finished, experiment, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / experiment.name
    before = {}
    for module, name in STAGES:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stop)
            with pytest.raises(KeyboardInterrupt):
                run_experiment(experiment, folder, CPU)
        assert not is_finished(experiment, folder)
        after = files_of(folder)
        assert {path: after[path] for path in before} == before
        assert len(after) > len(before)
        before = after
        monkeypatch.setattr(execute.run, "train", stop)  # training is not needed any more
    run_experiment(experiment, folder, CPU)
    assert contents(folder) == contents(finished)


@pytest.mark.parametrize("change", [{"seed": 1}, {"scan_seeds": 2}, {"min_distance": 1.5}], ids=str)
def test_the_folder_of_another_experiment_is_refused(finished, experiment, change):
    before = files_of(finished)
    with pytest.raises(ConfigError, match=f"holds another experiment, with {next(iter(change))}"):
        run_experiment(replace(experiment, **change), finished, CPU)
    assert files_of(finished) == before
    assert not is_finished(replace(experiment, **change), finished)


def test_a_run_of_the_train_command_is_taken_over_if_it_is_the_same(finished, experiment, tmp_path):
    plain = replace(experiment, snapshots=0)
    run.train(
        training_config(plain),
        tmp_path,
        CPU,
        resume=False,
        evaluate=lambda now: measure.quick_accuracies(now, plain.sampler, CPU),
        report=lambda _: None,
    )
    trained = files_of(tmp_path)
    for other in (
        replace(plain, seed=1),
        replace(plain, min_distance=1.5),
        replace(plain, learning_rate_factor=0.5),
        replace(plain, held_out_seed="none"),
        replace(plain, start=str(finished / "model.pt")),
        replace(plain, steps=2),
    ):
        with pytest.raises(AttnsearchError):
            run_experiment(other, tmp_path, CPU)
        assert files_of(tmp_path) == trained
    run_experiment(plain, tmp_path, CPU)
    assert {path: files_of(tmp_path)[path] for path in trained} == trained
    assert (tmp_path / "evaluation.json").read_bytes() == (
        finished / "evaluation.json"
    ).read_bytes()


def test_a_model_of_unknown_training_is_refused(finished, experiment, tmp_path):
    shutil.copy(finished / "model.pt", tmp_path)
    with pytest.raises(ConfigError, match="unknown training"):
        run_experiment(experiment, tmp_path, CPU)


def test_a_json_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, object())
    assert json.loads(path.read_text()) == [1]


def test_a_published_model_scans_and_is_listed(finished, experiment, tmp_path):
    path = publish(finished, tmp_path / "zoo")
    whole = finished / "model.pt"
    assert path.stat().st_size < whole.stat().st_size / 2
    slim = load_checkpoint(path)
    assert slim.training_state is None
    assert slim.weights == {}
    for name, tensor in load_checkpoint(whole).average.items():
        assert torch.allclose(slim.average[name].float(), tensor, rtol=1e-3, atol=1e-7)

    scan(path, tmp_path / "s.zarr", seeds=1, sampler=experiment.sampler)
    assert open_scan(tmp_path / "s.zarr", experiment.name).sizes["sample"] == 96

    config = json.loads(zoo.beside(path, "config").read_text())
    assert config["sha256"] == slim.digest
    for part in ("log", "evaluation", "ranking", "emergence"):
        name = "log.jsonl" if part == "log" else f"{part}.json"
        assert zoo.beside(path, part).read_bytes() == (finished / name).read_bytes()
    summary = zoo.summarise(path)
    assert (summary.encoder, summary.size, summary.seed) == ("rtep", "tiny", 0)
    assert summary.parameters == sum(tensor.numel() for tensor in slim.average.values())
    best = json.loads((finished / "ranking.json").read_text())["heads"][0]
    assert summary.head == f"L{best['layer']}H{best['head']}"
    assert (summary.score, summary.q_value) == (best["score"], best["q_value"])


def test_a_published_warm_start_names_its_source(finished, experiment, tmp_path):
    source = load_checkpoint(finished / "model.pt")
    begun = replace(experiment, name="warm", snapshots=0, start=str(finished / "model.pt"))
    run_experiment(begun, tmp_path / "warm", CPU)
    assert is_finished(begun, tmp_path / "warm")
    path = publish(tmp_path / "warm", tmp_path / "zoo")
    config = json.loads(zoo.beside(path, "config").read_text())
    assert (config["from"], config["from_sha256"]) == ("model", source.digest)
    assert load_checkpoint(path).origin.digest == source.digest


def test_an_unfinished_run_is_not_published(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "ranking.json").unlink()
    with pytest.raises(ConfigError, match="not finished"):
        publish(tmp_path / "run", tmp_path / "zoo")
    with pytest.raises(ConfigError, match="no run"):
        publish(tmp_path, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
