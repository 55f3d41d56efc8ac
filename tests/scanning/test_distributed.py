"""Blocks spread over workers, some of which die, end as those of one process that did not."""

import copy
import itertools
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed import LocalCluster
from typer.testing import CliRunner, Result

from attnsearch.cli import app
from attnsearch.models import Checkpoint, save_checkpoint
from attnsearch.store import open_scan, verify
from attnsearch.task.captions import grid_captions

Words = tuple[object, ...]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def tree_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def models(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models with weights of their own."""
    folder = tmp_path_factory.mktemp("models")
    for number in range(2):
        average = copy.deepcopy(dict(tiny_checkpoint.average))
        generator = torch.Generator().manual_seed(number)
        for tensor in average.values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
        save_checkpoint(replace(tiny_checkpoint, average=average), folder / f"m{number}.pt")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def few(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Words:
    """Options of a scan of three blocks."""
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    captions = grid_captions(tiny_checkpoint.task)[::8]
    prompts.write_text("".join(f"{caption.text}\n" for caption in captions))
    return ("--prompts", prompts, "--steps", 2, "--seeds", 1, "--batch", 4)


@pytest.fixture(scope="module")
def serial(models: list[Path], few: Words, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("serial") / "s.zarr"
    result = run("scan", *models, "--store", store, *few)
    assert result.exit_code == 0, result.output
    return store


def test_several_models_are_several_scans(
    models: list[Path], few: Words, serial: Path, tmp_path: Path
) -> None:
    for model in models:
        assert run("scan", model, "--store", tmp_path / "s.zarr", *few).exit_code == 0
    assert tree_bytes(tmp_path / "s.zarr") == tree_bytes(serial)


def test_processes_end_with_the_bytes_of_one(
    models: list[Path], few: Words, serial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By names of the folder one is in, which the processes have to find all the same.
    monkeypatch.chdir(models[0].parent)
    store = Path(os.path.relpath(tmp_path / "s.zarr"))
    names = [model.name for model in models]
    result = run("scan", *names, "--store", store, *few, "--dask", "processes")
    assert result.exit_code == 0, result.output
    assert tree_bytes(store) == tree_bytes(serial)


# A worker that is killed says so in its own way.
@pytest.mark.filterwarnings("ignore")
def test_a_worker_may_be_killed(
    models: list[Path], few: Words, serial: Path, tmp_path: Path
) -> None:
    killed: list[int] = []
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:

        def kill(store: Path, over: threading.Event) -> None:
            """As soon as a block is being written, kill who writes it."""
            while not over.is_set():
                for claim in (store / ".writing").glob("m*@*.lock"):
                    try:
                        pid = json.loads(claim.read_bytes())["pid"]
                    except (OSError, ValueError):
                        continue
                    if pid in {worker.pid for worker in cluster.workers.values()}:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        return
                time.sleep(0.001)

        for attempt in itertools.count():  # who kills may have come too late
            store, over = tmp_path / f"{attempt}" / "s.zarr", threading.Event()
            store.parent.mkdir()
            killer = threading.Thread(target=kill, args=(store, over))
            killer.start()
            result = run(
                "scan", *models, "--store", store, *few, "--dask", cluster.scheduler_address
            )
            over.set()
            killer.join()
            assert result.exit_code == 0, result.output
            if killed:
                break
    assert tree_bytes(store) == tree_bytes(serial)
    assert not [finding for check in verify(store) for finding in check.findings]


@pytest.mark.deep  # what a process raises is told as what a thread does; it takes one to start
def test_what_a_worker_finds_wrong_is_one_line(
    models: list[Path], few: Words, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    assert run("scan", models[0], "--store", store, "--steps", 1, "--seeds", 1).exit_code == 0
    before = tree_bytes(store)
    result = run("scan", models[0], "--store", store, *few, "--dask", "processes")
    assert result.exit_code == 2
    assert "different scan" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert tree_bytes(store) == before


def test_where_one_model_cannot_be_read_nothing_is_begun(
    models: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes(models[0].read_bytes()[:1000])
    for scheduler in ("threads", "processes"):
        store = tmp_path / "s.zarr"
        result = run("scan", models[0], broken, "--store", store, "--dask", scheduler)
        assert result.exit_code == 2
        assert "broken.pt" in result.stderr.splitlines()[-1]
        assert not store.exists()


def test_models_of_one_name_are_refused(models: list[Path], tmp_path: Path) -> None:
    twin = tmp_path / models[0].name
    twin.write_bytes(models[0].read_bytes())
    store = tmp_path / "s.zarr"
    result = run("scan", models[0], twin, "--store", store)
    assert result.exit_code == 2
    assert "several models would be scanned as m0" in result.stderr
    result = run("scan", *models, "--store", store, "--name", "one")
    assert result.exit_code == 2
    assert "--name is of one model" in result.stderr
    assert not store.exists()


def test_a_dry_run_plans_every_model(models: list[Path], few: Words, tmp_path: Path) -> None:
    result = run("scan", *models[:2], "--store", tmp_path / "s.zarr", *few, "--dry-run")
    assert [each["scan"] for each in json.loads(result.stdout)] == ["m0", "m1"]
    assert not (tmp_path / "s.zarr").exists()


def test_models_differ(serial: Path) -> None:
    """Or the tests above would not tell one from another."""
    sketches = [open_scan(serial, f"m{number}")["sketch"].to_numpy() for number in range(2)]
    assert len({sketch.tobytes() for sketch in sketches}) == 2
