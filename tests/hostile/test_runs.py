"""Folders of runs, and what lies beside published models, with files of anyone in them."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st

from attnsearch import zoo
from attnsearch.encoders import EncoderKind
from attnsearch.experiments import Experiment, training_config
from attnsearch.experiments.folder import write_json
from attnsearch.training import run as training

FEW = examples(8, deep=120)
PUBLISHED = zoo.FOLDER / "rtep-atto-seed0.pt"
CPU = ("--device", "cpu")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Nothing is painted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnsearch.experiments.quick_accuracies", lambda *_: {"shape": 0.5})
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of a finished run of one step, with the measurements of another."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    experiment = Experiment(
        name="tiny", encoder=EncoderKind.RTEP, size="atto", seed=0, steps=1, snapshots=1
    )
    training.train(
        training_config(experiment),
        folder,
        torch.device("cpu"),
        resume=False,
        evaluate=lambda _: {"shape": 0.5},
        report=lambda _: None,
    )
    write_json(folder / "experiment.json", experiment.table())
    write_json(folder / "machine.json", {"cpu": "slow"})
    for part in ("evaluation", "ranking"):
        shutil.copy(zoo.beside(PUBLISHED, part), folder / f"{part}.json")
    snapshots = json.loads(zoo.beside(PUBLISHED, "emergence").read_text())
    write_json(folder / "emergence.json", snapshots[-1:])
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def spoil(place, finished):
    """Makes a copy of the run with another file in it."""

    def copied(name: str, content: bytes) -> Path:
        empty(place)
        folder = shutil.copytree(finished, place / "tiny")
        (folder / name).write_bytes(content)
        return folder

    return copied


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def commands_on(folder: Path) -> dict[str, tuple[object, ...]]:
    return {
        "publish": ("zoo", "publish", folder, "--to", folder.parent / "zoo"),
        "emergence": ("zoo", "emergence", folder),
        "train": ("train", "--size", "atto", "--steps", 1, "--resume", "--out", folder, *CPU),
        "again": ("zoo", "train", folder.parent / "tiny.toml", "--out", folder.parent, *CPU),
    }


TABLES = ("experiment.json", "machine.json", "evaluation.json", "ranking.json", "emergence.json")
READ = {
    "experiment.json": ("publish",),
    "machine.json": ("publish",),
    "evaluation.json": ("publish",),
    "ranking.json": ("publish",),
    "emergence.json": ("publish", "emergence"),
    "log.jsonl": ("publish", "train"),
    "model.pt": ("publish",),
    "checkpoint.pt": ("train",),
}
"""Which commands read a file of a run."""


@pytest.mark.parametrize("verb", ["publish", "emergence", "train"])
def test_a_run_as_it_should_be_is_read(lawful, spoil, finished, verb):
    folder = spoil("log.jsonl", (finished / "log.jsonl").read_bytes())
    assert lawful(folder.parent, *commands_on(folder)[verb]).exit_code == 0


@given(data=st.data())
@FEW
def test_damaged_bytes_of_a_run(lawful, spoil, damaged, finished, data):
    name = data.draw(st.sampled_from([*READ]))
    folder = spoil(name, data.draw(damaged((finished / name).read_bytes())))
    verb = data.draw(st.sampled_from(READ[name]))
    lawful(folder.parent, *commands_on(folder)[verb])


@given(data=st.data())
@FEW
def test_other_values_in_the_tables_of_a_run(lawful, spoil, spoilt, finished, data):
    name = data.draw(st.sampled_from(TABLES))
    table = json.loads((finished / name).read_text())
    folder = spoil(name, json.dumps(data.draw(spoilt(table))).encode())
    verb = data.draw(st.sampled_from(READ[name]))
    lawful(folder.parent, *commands_on(folder)[verb])


@given(data=st.data())
@FEW
def test_other_values_in_a_training_state(lawful, spoil, spoilt, finished, data):
    content = torch.load(finished / "checkpoint.pt", weights_only=True)
    state = data.draw(spoilt(content["training_state"], tensors=True))
    folder = spoil("log.jsonl", (finished / "log.jsonl").read_bytes())
    torch.save(content | {"training_state": state}, folder / "checkpoint.pt")
    lawful(folder.parent, *commands_on(folder)["train"])


@given(data=st.data())
@FEW
def test_other_lines_in_a_log(lawful, spoil, spoilt, finished, data):
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    other = data.draw(st.lists(spoilt(lines[0]) | st.sampled_from(lines), max_size=4))
    text = "\n".join(json.dumps(line) for line in other)
    folder = spoil("log.jsonl", text.encode() + data.draw(st.sampled_from([b"", b"\n", b"{"])))
    lawful(folder.parent, *commands_on(folder)["train"])


SIDE = ("config", "evaluation", "ranking", "emergence")


@given(data=st.data())
@FEW
def test_other_files_beside_a_published_model(lawful, spoilt, damaged, place, data):
    part = data.draw(st.sampled_from(SIDE))
    empty(place)
    shutil.copy(PUBLISHED, place)
    original = zoo.beside(PUBLISHED, part).read_bytes()
    table = json.loads(original)
    table = table[:2] if part == "emergence" else table
    written = st.builds(lambda value: json.dumps(value).encode(), spoilt(table))
    content = data.draw(written | damaged(original))
    zoo.beside(place / PUBLISHED.name, part).write_bytes(content)
    words = ("emergence", place / PUBLISHED.name) if part == "emergence" else ("--folder", place)
    json_too = data.draw(st.sampled_from([(), ("--json",)]))
    lawful(place, "zoo", *words, *json_too)


def test_curves_of_any_snapshots_are_drawn_or_refused(lawful, place):
    rows = [
        {
            "step": step,
            "accuracies": {
                f"in_distribution_{name}": value
                for name in ("shape", "colour", "binding", "relation_loose")
            },
            "heads": [{"layer": 0, "head": 0, "score": value, "q_value": value}],
        }
        for step, value in ((0, 0.0), (0, 1.0), (10**12, float("nan")), (3, 1))
    ]
    (place / "odd").mkdir(exist_ok=True)
    (place / "odd" / "emergence.json").write_text(json.dumps(rows))
    result = lawful(place, "zoo", "emergence", place / "odd", "-o", place / "curves.png")
    assert result.exit_code == 0


@pytest.mark.parametrize("name", ["../tiny", "/tmp/tiny", "..", "a/b", "", "a\nb"], ids=repr)
def test_the_name_in_a_record_does_not_lead_out_of_the_folder(refused, spoil, finished, name):
    record = json.loads((finished / "experiment.json").read_text())
    folder = spoil("experiment.json", json.dumps(record | {"name": name}).encode())
    line = refused(folder.parent, *commands_on(folder)["publish"])
    assert "name must be letters, digits" in line


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_in_a_run_is_refused(refused, spoil, finished, name, kind):
    folder = spoil("other", b"")
    (folder / name).unlink()
    match kind:
        case "pipe":
            os.mkfifo(folder / name)
        case "device":
            (folder / name).symlink_to("/dev/zero")
        case "folder":
            (folder / name).mkdir()
    for verb in READ[name]:
        assert name in refused(folder.parent, *commands_on(folder)[verb])


def test_a_log_of_something_else_is_not_shortened(refused, spoil):
    folder = spoil("log.jsonl", b'{"step": 1}\nmy diary\n{"step": 2}\n')
    line = refused(folder.parent, *commands_on(folder)["train"])
    assert "log.jsonl, line 2 is not of a training; move the file away" in line


def test_a_line_that_a_crash_cut_off_is_dropped(lawful, spoil):
    folder = spoil("log.jsonl", b'{"step": 1, "loss": 0.5}\n{"step": 2}\n{"st')
    assert lawful(folder.parent, *commands_on(folder)["train"]).exit_code == 0
    assert (folder / "log.jsonl").read_bytes() == b'{"step": 1, "loss": 0.5}\n'
