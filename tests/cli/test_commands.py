"""The commands as a user types them: what they print, and how they end."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from attnsearch.axes import RELATIONS, ROLES
from attnsearch.cli import app
from attnsearch.models import Checkpoint, DiT, save_checkpoint
from attnsearch.store import SCHEMA_VERSION

RANK_FIELDS = {
    "rank", "model", "group", "layer", "head", "score", "ci_low", "ci_high", "effect", "p_value",
    "q_value", "p_family", "profile", "prompts",
    "peak_step", "blocks", "blocks_done",
}  # fmt: skip


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result: Result) -> str:
    """The one line a refused command prints."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    *news, line = result.stderr.strip().splitlines()
    assert line.startswith("attnsearch: ")
    assert not any("Traceback" in other for other in news)
    return line


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="module")
def store(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    result = run("scan", checkpoint, "--store", path, "--seeds", 1, "--steps", 2)
    assert result.exit_code == 0, result.output
    return path


def test_rank_prints_json_in_order(store: Path) -> None:
    result = run("rank", store, "--metric", "relational", "--json")
    rows = json.loads(result.stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert set(rows[0]) == RANK_FIELDS
    assert all(row["ci_low"] <= row["score"] <= row["ci_high"] for row in rows)


def test_rank_prints_a_table_with_every_column_whole(store: Path) -> None:
    result = run("rank", store, "--top", 2)
    header = result.stdout.splitlines()[1].split()
    assert header[:4] == ["rank", "model", "head", "score"]
    assert len(result.stdout.splitlines()) == 4
    assert "…" not in result.stdout


def test_rank_draws_the_maps_of_the_best_head(store: Path, tmp_path: Path) -> None:
    picture = tmp_path / "head.png"
    head = json.loads(run("rank", store, "--top", 1, "--json").stdout)[0]
    address = f"L{head['layer']}H{head['head']}"
    result = run("maps", store, address, "-o", picture, "--json")
    assert {row["relation"] for row in json.loads(result.stdout)} == set(RELATIONS)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "cannot write" in refused(run("maps", store, address, "-o", tmp_path / "no" / "x.png"))
    assert "tiny has no head L7H0" in refused(run("maps", store, "tiny:L7H0"))
    assert "no scan called 'other'" in refused(run("maps", store, "other:L0H0"))


def test_ask_without_any_found_object_says_so(store: Path) -> None:
    assert "object1 was found in no image of tiny" in refused(run("ask", store, "object1 -> pad"))


def test_a_dry_run_writes_nothing_and_counts_the_maps(checkpoint: Path, tmp_path: Path) -> None:
    words = ("--steps", 3, "--device", "cpu", "--dry-run")
    result = run("scan", checkpoint, "--store", tmp_path / "s", *words)
    plan = json.loads(result.stdout)
    assert plan["maps"] == 96 * 4 * 3 * 2 * 2 * 2
    assert plan["bytes"] > 0
    assert plan["seconds"] >= 0
    keys, channels, roles, basis = 12, 16, 8, 16
    assert plan["attention_flops"] == plan["maps"] * 4 * 16 * keys * channels
    assert plan["sketch_flops"] == plan["maps"] * 2 * 16 * roles * (keys + basis)
    assert plan["sketch_fraction"] == round(roles * (keys + basis) / (2 * keys * channels), 3)
    assert plan["floor_seconds"] is None
    assert not (tmp_path / "s").exists()


def test_scanning_again_changes_no_byte(checkpoint: Path, store: Path) -> None:
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    assert run("scan", checkpoint, "--store", store, "--seeds", 1, "--steps", 2).exit_code == 0
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before


def test_a_different_scan_of_the_same_name_is_refused(checkpoint: Path, store: Path) -> None:
    other = run("scan", checkpoint, "--store", store, "--seeds", 2, "--steps", 2)
    assert "--name" in refused(other)


def test_evaluate_tells_trained_from_held_out(checkpoint: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = run("evaluate", checkpoint, "--seeds", 1, "--steps", 1, "--json", "-o", sheet)
    counts = {
        row["split"]: row["count"]
        for row in json.loads(result.stdout)
        if row["measure"] == "relation_loose"
    }
    assert counts == {"in_distribution": 84, "held_out": 12}
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_captions_without_colours_are_scanned_and_ranked(checkpoint: Path, tmp_path: Path) -> None:
    store = tmp_path / "s"
    words = ("scan", checkpoint, "--store", store, "--seeds", 1, "--steps", 1)
    assert run(*words, "--prompts", "grid-no-colours").exit_code == 0
    rows = json.loads(run("rank", store, "--metric", "relational", "--json").stdout)
    assert [row["prompts"] for row in rows] == [48] * 4
    said = "no prompt of tiny has words of the role colour2"
    assert said in refused(run("ask", store, "mass(colour2)"))


def test_train_resumes_and_publishes(tmp_path: Path) -> None:
    words = ("train", "--size", "atto", "--device", "cpu", "--out", tmp_path / "run")
    assert run(*words, "--steps", 1).exit_code == 0
    assert "--resume" in refused(run(*words, "--steps", 2))
    assert run(*words, "--steps", 2, "--resume").exit_code == 0
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2]
    assert any("in_distribution_relation_loose" in line for line in log)
    facts = json.loads(run("info", tmp_path / "run/model.pt", "--json").stdout)
    assert facts["training step"] == 2
    assert "from" not in facts


def test_train_starts_from_a_model_with_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnsearch.experiments.quick_accuracies", lambda *_: {})
    words = ("train", "--size", "atto", "--device", "cpu", "--steps", 2, "--out", tmp_path / "run")
    task = ("--colour-dropout", "0:0,1:0.5", "--phrases", "all", "--held-out-seed", "none")
    begin = ("--from", "rtep-atto-seed0", "--learning-rate-factor", 0.5)
    assert run(*words, *task, *begin).exit_code == 0
    facts = json.loads(run("info", tmp_path / "run/model.pt", "--json").stdout)
    assert facts["from"] == "rtep-atto-seed0"
    assert len(facts["from sha256"]) == 64
    assert (facts["task colour_dropout"], facts["task phrases"]) == (0.5, "all")
    assert facts["task held_out_seed"] is None
    for other, told in (
        (task[2:] + begin, "task"),
        (("--colour-dropout", "0.5", *task[2:], *begin), "colour_dropout"),
        (task + begin[2:], "began with rtep-atto-seed0"),
        (task + begin[:2], "learning_rate"),
    ):
        assert told in refused(run(*words, *other, "--resume"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--colour-dropout", "half"), "--colour-dropout must be a probability"),
        (("--colour-dropout", "0:0,x:1"), "--colour-dropout must be a probability"),
        (("--colour-dropout", "1.5"), "colour_dropout 1.5 is not a probability"),
        (("--held-out-seed", "all"), "held_out_seed"),
        (("--held-out-seed", "1", "--from", "rtep-atto-seed0"), "this task holds out"),
        (("--from", "rtep-femto-seed0"), "cannot start from rtep-femto-seed0: its model has"),
        (("--from", "rte-atto-seed0"), "cannot start from rte-atto-seed0: its encoder has kind"),
        (("--from", "none.pt"), "none.pt"),
        (("--from", "none"), "packaged model"),
        (("--learning-rate-factor", "0"), "learning_rate_factor"),
    ],
)
def test_a_training_that_cannot_be_is_refused(tmp_path: Path, words: tuple, told: str) -> None:
    line = refused(
        run("train", "--size", "atto", "--device", "cpu", "--out", tmp_path / "r", *words)
    )
    assert told in line
    assert not (tmp_path / "r").exists()


def test_info_describes_a_store(store: Path) -> None:
    table = run("info", store).stdout
    assert all(f"energy kept, {role}" in table for role in ROLES if role != "pad")
    assert "…" not in table
    facts = json.loads(run("info", store, "--json").stdout)
    assert "1,536 maps of 96 samples" in facts["tiny"]
    assert facts["tiny basis"] == "4 x 4 frequencies of 4 x 4 image tokens"
    # All frequencies are kept, so what is missing is what float16 rounds away.
    assert facts["tiny energy kept, relation"] == pytest.approx(1, abs=2e-3)


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def _bad_checkpoints(folder: Path, good: Path) -> dict[str, Path]:
    text, cut, other, hostile = (folder / f"{n}.pt" for n in ("text", "cut", "other", "hostile"))
    text.write_text("not a checkpoint")
    cut.write_bytes(good.read_bytes()[:5000])
    torch.save({"state_dict": {"weight": torch.ones(2)}}, other)
    hostile.write_bytes(pickle.dumps(_Hostile(folder / "ran")))
    return {
        "no such file": folder / "absent.pt",
        "is not a checkpoint": text,
        "truncated": cut,
        "another architecture": other,
        "would run code": hostile,
    }


@pytest.mark.parametrize("verb", ["scan", "evaluate", "info"])
def test_bad_checkpoints_get_one_line_each(verb: str, checkpoint: Path, tmp_path: Path) -> None:
    options = ("--store", tmp_path / "s.zarr") if verb == "scan" else ()
    for complaint, path in _bad_checkpoints(tmp_path, checkpoint).items():
        assert complaint in refused(run(verb, path, *options))
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "s.zarr").exists()


def test_bad_stores_and_metrics_get_one_line_each(store: Path, tmp_path: Path) -> None:
    assert "absent.zarr" in refused(run("rank", tmp_path / "absent.zarr"))
    assert "unknown metric 'spatial'" in refused(run("rank", store, "--metric", "spatial"))
    assert "unknown region" in refused(run("ask", store, "sky -> relation"))
    assert "nobody" in refused(run("rank", store, "--scan", "nobody"))
    (tmp_path / "folder").mkdir()
    refused(run("rank", tmp_path / "folder"))
    newer = tmp_path / "newer.zarr"
    shutil.copytree(store, newer)
    header = newer / "zarr.json"
    text = header.read_text()
    header.write_text(
        text.replace(f'"attnsearch_schema": {SCHEMA_VERSION}', '"attnsearch_schema": 99')
    )
    assert "newer" in refused(run("rank", newer))


def test_a_device_that_is_not_here_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    message = refused(run("scan", checkpoint, "--store", tmp_path / "s", "--device", "cuda:99"))
    assert "cuda:99" in message


def test_a_full_disk_behind_the_output_is_one_line(store: Path) -> None:
    command = [sys.executable, "-c", "from attnsearch.cli import main; main()", "rank", str(store)]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("attnsearch: output: No space left")
    assert "Traceback" not in result.stderr


def test_an_interrupted_command_says_how_to_go_on(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("attnsearch.scanning.execute_plan", interrupt)
    result = run("scan", checkpoint, "--store", tmp_path / "s")
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr


def test_more_samples_than_a_scan_can_hold_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    result = run("scan", checkpoint, "--store", tmp_path / "s", "--seeds", 200_000, "--dry-run")
    assert "more than the 10,000,000 samples of a scan" in refused(result)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_model_of_latents_is_not_judged_by_its_images(
    tiny_checkpoint: Checkpoint, tmp_path: Path, channels: int
) -> None:
    model = replace(tiny_checkpoint.model, image_channels=channels, image_side=16)
    path = tmp_path / "latent.pt"
    average = DiT(model).state_dict()
    save_checkpoint(replace(tiny_checkpoint, model=model, weights={}, average=average), path)
    said = f"the model paints {channels} channels of 16 px"
    assert said in refused(run("evaluate", path, "--seeds", 1, "--steps", 1))
    result = run("scan", path, "--store", tmp_path / "s", "--steps", 2, "--seeds", 1, "--dry-run")
    if channels == 4:  # which can be looked at
        assert result.exit_code == 0, result.output
    else:
        assert said in refused(result)


def test_a_model_that_paints_nothing_defined_is_judged_and_shown(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    average = {name: tensor * 1e30 for name, tensor in tiny_checkpoint.average.items()}
    path, sheet = tmp_path / "wild.pt", tmp_path / "sheet.png"
    save_checkpoint(replace(tiny_checkpoint, average=average), path)
    result = run("evaluate", path, "--seeds", 1, "--steps", 1, "-o", sheet, "--json")
    assert result.exit_code == 0, result.output
    rows = [row for row in json.loads(result.stdout) if row["split"] == "in_distribution"]
    assert {row["value"] for row in rows} == {0}
    assert sheet.exists()
