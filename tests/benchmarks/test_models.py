"""The side by side with peers: our variants are exact, absent peers are told, nothing is lost."""

import importlib
import json
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
COLUMNS = {
    "environment", "variant", "not_run", "rounds", "processor_seconds", "over_plain",
    "peak_memory_growth_bytes", "held_bytes", "disk_bytes", "files", "write_seconds",
    "answer_seconds", "score_seconds", "no_answer", "top_in_common", "largest_mass_error",
    "largest_output_difference",
}  # fmt: skip


@pytest.fixture(scope="module")
def module():
    """Imports a module of the benchmarks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module


@pytest.fixture(scope="module")
def size(module):
    return module("_models_pipeline").Size(
        layers=2, heads=6, head_channels=8, side=4, samples=4, steps=3
    )


@pytest.fixture(scope="module")
def inspected(module, size, tmp_path_factory):
    """What a worker says of each of our variants, and the folder of its work."""
    environments = module("_models_environments")
    folder = tmp_path_factory.mktemp("work")
    with environments.WorkerProcess(Path(sys.executable), folder) as worker:
        worker.ask("make", **asdict(size))
        worker.ask("reference")
        found = {}
        for variant in environments.ENVIRONMENTS[0].variants:
            worker.ask("warm_up", variant=variant)
            found[variant] = worker.ask("inspect", variant=variant)
        with pytest.raises(environments.WorkerError, match="KeyError: 'no such variant'"):
            worker.ask("warm_up", variant="no such variant")
    return found, folder


def test_the_reference_gives_all_attention_to_some_role(inspected, size):
    masses = torch.load(inspected[1] / "reference.pt")["masses"]
    assert masses.shape[:4] == (size.steps, size.layers, 2 * size.samples, size.heads)
    assert masses.dtype == torch.float64
    torch.testing.assert_close(masses.sum(-1), torch.ones_like(masses[..., 0]))
    assert masses.std() > 0.05


@pytest.mark.parametrize(
    ("variant", "tolerance"),
    [("keep every map", 3e-6), ("attnsearch in memory", 3e-6), ("attnsearch scan", 5e-4)],
)
def test_what_is_recorded_is_what_maps_in_float64_give(inspected, variant, tolerance):
    assert 0 < inspected[0][variant]["largest_mass_error"] < tolerance


def test_recording_leaves_the_output_as_it_was(inspected):
    found = inspected[0]
    assert found["plain"]["largest_output_difference"] == 0
    assert all(each["largest_output_difference"] < 1e-4 for each in found.values())


def test_bytes_are_those_of_what_is_kept(inspected, size):
    found = inspected[0]
    maps = 4 * size.steps * size.layers * 2 * size.samples * size.heads * 16 * size.text_tokens
    assert found["keep every map"]["held_bytes"] == maps
    assert maps < found["keep every map"]["disk_bytes"] < 1.2 * maps
    assert found["keep every map"]["files"] == 1
    assert found["plain"]["held_bytes"] == found["attnsearch scan"]["held_bytes"] == 0
    assert found["attnsearch scan"]["files"] > 1


def test_a_question_is_answered_from_disk_or_it_is_said_why_not(inspected, size):
    for variant, found in inspected[0].items():
        answers = variant in ("keep every map", "attnsearch scan")
        assert answers == ("answer_seconds" in found) == ("no_answer" not in found)
        if answers:
            assert found["top_in_common"] == 10 < size.layers * size.heads


@pytest.mark.parametrize("sign", [1, -1])
def test_a_head_that_marks_the_asked_side_scores_one(module, inspected, sign):
    pipeline = module("_models_pipeline")
    stored = torch.load(inspected[1] / "inputs.pt")
    sizes = pipeline.Size(**stored.pop("size"))
    work = pipeline.Work(folder=inspected[1], pipe=None, size=sizes, **stored)
    words = work.relation / work.relation.sum(1, keepdim=True)
    asked = sign * (work.target @ work.positions.T) > 0
    marks = asked[:, None, :, None] * words[:, None, None, :]
    attention = marks.expand(-1, sizes.heads, -1, -1).repeat(2, 1, 1, 1)
    scores = pipeline.scores_of([attention] * sizes.layers, work)
    torch.testing.assert_close(scores, torch.full_like(scores, sign), check_dtype=False)


@pytest.mark.deep  # our variants are held to the definition above; this is the table of them
def test_a_run_without_peers_says_so_and_writes_every_column(
    module, size, monkeypatch, tmp_path, capsys
):
    models, environments = module("models"), module("_models_environments")
    own, *peers = environments.ENVIRONMENTS
    few = replace(own, variants=("plain", "attnsearch scan"))
    monkeypatch.setattr(models, "ENVIRONMENTS", (few, *peers))
    monkeypatch.setattr(models, "SIZE", size)
    output = tmp_path / "models.json"
    monkeypatch.setattr(
        "sys.argv",
        ["models.py", "--rounds", "1", "--peers", str(tmp_path), "--output", str(output)],
    )
    models.main()
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert all(row.keys() == COLUMNS for row in rows)
    ran = [row for row in rows if not row["not_run"]]
    assert [row["variant"] for row in ran] == ["plain", "attnsearch scan"]
    assert all(row["processor_seconds"]["median"] > 0 for row in ran)
    assert ran[0]["over_plain"]["median"] == 1
    absent = [row for row in rows if row["not_run"]]
    assert {row["environment"] for row in absent} == {peer.name for peer in peers}
    assert all("--setup makes it" in row["not_run"] for row in absent)
    printed = capsys.readouterr().out.splitlines()
    table = printed[-len(rows) :]
    assert [line.startswith("attnsearch scan") for line in table].index(True) == 1
    assert sum("not run: " in line for line in table) == len(absent)


def test_every_column_of_the_kept_results_is_there(module):
    path = BENCHMARKS / "results" / "models-cpu.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["machine"]["cpu"]
    assert {field.name for field in fields(module("_models_report").Row)} == COLUMNS
    assert all(row.keys() == COLUMNS for row in results["rows"])


def test_the_environment_of_a_peer_keeps_our_torch_and_loses_torchvision(module):
    for environment in module("_models_environments").ENVIRONMENTS[1:]:
        *installs, last = environment.pip_commands()
        pinned = f"torch=={torch.__version__.partition('+')[0]}"
        assert all(pinned in command for command in installs)
        assert last == ["uninstall", "--yes", "torchvision"]


def test_without_a_folder_of_peers_there_is_no_interpreter(module):
    environments = module("_models_environments")
    with pytest.raises(environments.WorkerError, match="--peers"):
        environments.ENVIRONMENTS[1].interpreter(None)
