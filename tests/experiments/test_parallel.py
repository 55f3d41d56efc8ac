import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from budget import DEEP

from attnsearch.errors import ConfigError
from attnsearch.experiments import parallel, read_experiment, run_all, run_experiment
from attnsearch.models import load_checkpoint

CPU = torch.device("cpu")
TINY = 'encoder = "rtep"\nsize = "atto"\nevaluation_seeds = 1\nscan_seeds = 1\nsampling_steps = 1\n'


def written(folder: Path, name: str, lines: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(TINY + lines)
    return path


def contents(folder: Path):
    """Bytes of every file but the log, which has a clock."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "log.jsonl"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_in_parallel_comes_out_what_comes_out_one_by_one(tmp_path):
    seeds = range(2 if DEEP else 1)
    paths = [written(tmp_path, f"seed{k}", f"seed = {k}\nsteps = 1\n") for k in seeds]
    refused = written(tmp_path, "occupied", "seed = 0\nsteps = 1\n")
    (tmp_path / "many" / "occupied").mkdir(parents=True)
    (tmp_path / "many" / "occupied" / "model.pt").touch()
    news = []
    failures = run_all(
        [refused, *paths],
        tmp_path / "many",
        jobs=2,
        device=CPU,
        threads=1,
        report=lambda name, now: news.append((name, now.stage)),
    )
    assert list(failures) == ["occupied"]
    assert "unknown training" in failures["occupied"]
    assert sorted(name for name, stage in news if stage == "done") == [f"seed{k}" for k in seeds]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_experiment(read_experiment(paths[0]), tmp_path / "one" / "seed0", CPU)
    finally:
        torch.set_num_threads(before)
    assert contents(tmp_path / "many" / "seed0") == contents(tmp_path / "one" / "seed0")
    for other in paths[1:]:
        assert contents(tmp_path / "many" / other.stem) != contents(tmp_path / "one" / "seed0")

    # What is finished is skipped without a process.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "_start", None)
        assert run_all(paths, tmp_path / "many", jobs=2, device=CPU) == {}


def test_a_bad_file_stops_the_list_before_anything_runs(tmp_path):
    good = written(tmp_path, "good", "seed = 0\nsteps = 1\n")
    bad = written(tmp_path, "bad", "seed = 0\nstep = 1\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: unknown key 'step'"):
        run_all([good, bad], tmp_path / "out", jobs=1, device=CPU)
    with pytest.raises(ConfigError, match="called good"):
        run_all([good, good], tmp_path / "out", jobs=1, device=CPU)
    assert not (tmp_path / "out").exists()


def test_gpus_are_dealt_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    dealt = [str(device) for device in parallel._dealt(torch.device("cuda"), 3)]
    assert dealt == ["cuda:0", "cuda:1", "cuda:0"]
    assert [str(d) for d in parallel._dealt(torch.device("cuda:1"), 2)] == ["cuda:1", "cuda:1"]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups")
def test_ctrl_c_saves_every_experiment_and_the_same_command_goes_on(tmp_path):
    seeds = range(2 if DEEP else 1)
    paths = [written(tmp_path, f"seed{k}", f"seed = {k}\nsteps = 100_000\n") for k in seeds]
    code = "from attnsearch.cli import main; main()"
    words = ["zoo", "train", *map(str, paths), "--out", str(tmp_path), "--jobs", "2"]
    command = [sys.executable, "-c", code, *words, "--device", "cpu"]
    logs = [tmp_path / f"seed{k}" / "log.jsonl" for k in seeds]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.poll() is None and not all(log.exists() for log in logs):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, news = process.communicate()
    assert process.returncode == 130, news
    assert "Traceback" not in news
    assert "run the same command again" in news
    for k in seeds:
        saved = load_checkpoint(tmp_path / f"seed{k}" / "checkpoint.pt")
        assert 0 <= saved.step < 100_000
        record = json.loads((tmp_path / f"seed{k}" / "experiment.json").read_text())
        assert record["seed"] == k
