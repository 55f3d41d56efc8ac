"""`attnsearch zoo` and its commands."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attnsearch import zoo
from attnsearch.cli import app
from attnsearch.errors import ConfigError


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_every_packaged_model_is_a_row_and_says_where_it_is():
    models = json.loads(run("zoo", "--json").stdout)
    assert [Path(model["path"]) for model in models] == zoo.packaged()
    demo = next(model for model in models if Path(model["path"]) == zoo.demonstration())
    assert demo["encoder"] == "rtep"
    assert demo["relation_loose"] > 0.9
    table = run("zoo").stdout
    assert all(model["name"] in table for model in models)
    assert "…" not in table


def test_what_no_file_tells_is_a_dash(tmp_path):
    (tmp_path / "bare.pt").touch()
    *_, row = run("zoo", "--folder", tmp_path).stdout.splitlines()
    assert row.split() == ["bare", *"-" * 9]
    (model,) = json.loads(run("zoo", "--folder", tmp_path, "--json").stdout)
    assert {key for key, value in model.items() if value is not None} == {"name", "path"}


HEAD = '{"heads": [{"layer": 0, "head": 1, %s}]}'


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("ranking", '{"heads": ["x"]}'),
        ("ranking", '{"heads": [{"score": 1}]}'),
        ("ranking", '{"heads": {"a": 1}}'),
        ("ranking", '{"heads": [{"layer": "0", "head": 1}]}'),
        ("ranking", HEAD % '"score": "0.5"'),
        ("ranking", HEAD % '"score": true'),
        ("ranking", HEAD % f'"q_value": 1{"0" * 400}'),
        ("config", '{"encoder": ["rtep"]}'),
        ("config", '{"size": 3}'),
        ("config", '{"seed": 1.5}'),
        ("config", '{"parameters": "many"}'),
        ("config", f'{{"parameters": 1{"0" * 400}}}'),
        ("evaluation", '{"held_out": 3}'),
        ("evaluation", '{"held_out": {"relation_loose": {"value": []}}}'),
    ],
    ids=range(14),
)
def test_records_of_another_form_are_refused(tmp_path, part, content):
    path = Path(shutil.copy(zoo.demonstration(), tmp_path))
    zoo.beside(path, part).write_text(content)
    result = run("zoo", "--folder", tmp_path)
    assert result.exit_code == 2
    assert f"beside {path} is damaged" in " ".join(result.stderr.split())


def test_a_record_that_is_no_file_is_named(tmp_path):
    path = Path(shutil.copy(zoo.demonstration(), tmp_path))
    for place in (zoo.beside(path, "ranking"), zoo.beside(path, "emergence")):
        place.mkdir()
    assert f"cannot read {zoo.beside(path, 'ranking')}" in run("zoo", "--folder", tmp_path).stderr
    assert f"cannot read {zoo.beside(path, 'emergence')}" in run("zoo", "emergence", path).stderr


@pytest.mark.parametrize("content", ["{", "[]", '{"heads": 3'])
def test_a_damaged_file_is_named(tmp_path, content):
    path = shutil.copy(zoo.demonstration(), tmp_path)
    broken = zoo.beside(Path(path), "ranking")
    broken.write_text(content)
    with pytest.raises(ConfigError, match=f"{broken.name} is damaged"):
        zoo.summarise(Path(path))
    result = run("zoo", "--folder", tmp_path)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("zoo", "--folder", "nowhere"),
        ("zoo", "train", "nowhere.toml", "--out", "runs"),
        ("zoo", "publish", "nowhere", "--to", "models"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_named_in_one_line(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("attnsearch: ")
    assert "nowhere" in line
    assert list(tmp_path.iterdir()) == []


def test_experiments_that_failed_are_reported_at_the_end(tmp_path, monkeypatch):
    from attnsearch import experiments

    def run_all(paths, out, *, jobs, device, report):
        report("one", experiments.News("train", 1, 2, "loss 1.0"))
        report("two", experiments.News("done", 1, 1))
        return {"one": "the disk is full"}

    monkeypatch.setattr(experiments, "run_all", run_all)
    files = [tmp_path / "one.toml", tmp_path / "two.toml"]
    for file in files:
        file.touch()
    result = run("zoo", "train", *files, "--out", tmp_path, "--device", "cpu")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "one: train, loss 1.0",
        "two: done",
        "attnsearch: one failed: the disk is full",
    ]


FOLLOWED = zoo.FOLDER / "rtep-atto-seed0.pt"


def test_the_emergence_of_a_model_is_a_row_per_snapshot(tmp_path):
    picture = tmp_path / "curves.png"
    result = run("zoo", "emergence", FOLLOWED, "-o", picture, "--json")
    rows = json.loads(result.stdout)
    assert {row["model"] for row in rows} == {FOLLOWED.stem}
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert all(0 <= row["relation_loose"] <= row["binding"] <= 1 for row in rows)
    assert rows[0]["relation_loose"] < 0.1 < 0.9 < rows[-1]["relation_loose"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    table = run("zoo", "emergence", FOLLOWED).stdout
    assert all(f"{step:,}" in table for step in steps)


def followed(*, step="1", score="0.5", q="0.1", share="1"):
    shares = ("shape", "colour", "binding", "relation_loose")
    accuracies = ", ".join(f'"in_distribution_{name}": {share}' for name in shares)
    head = f'{{"layer": 0, "head": 1, "score": {score}, "q_value": {q}}}'
    return f'[{{"step": {step}, "accuracies": {{{accuracies}}}, "heads": [{head}]}}]'


def test_an_emergence_of_the_least_is_listed(tmp_path):
    (tmp_path / "emergence.json").write_text(followed(score="NaN", share="0"))
    assert run("zoo", "emergence", tmp_path).exit_code == 0


@pytest.mark.parametrize(
    "content",
    [
        "[", "3", "[]", "[{}]", '[{"step": 1, "heads": []}]', "[" * 99_999, '{"a": 1}',
        followed(step="-1"), followed(step="1e3"), followed(step="Infinity"), followed(step='"1"'),
        followed(score="1.5"), followed(score="-Infinity"), followed(score='"1"'),
        followed(q="-0.1"), followed(q=f"1{'0' * 400}"), followed(share="2"),
        followed(share="true"),
    ],
    ids=range(18),
)  # fmt: skip
def test_a_damaged_emergence_is_named(tmp_path, content):
    (tmp_path / "emergence.json").write_text(content)
    result = run("zoo", "emergence", tmp_path)
    assert result.exit_code == 2
    assert "emergence.json is damaged" in result.stderr


def test_a_training_that_was_not_followed_says_how_to(tmp_path):
    (tmp_path / "plain.pt").touch()
    result = run("zoo", "emergence", tmp_path / "plain.pt")
    assert result.exit_code == 2
    assert "snapshots" in result.stderr
    absent = run("zoo", "emergence", tmp_path / "absent.pt")
    assert "no such file" in absent.stderr
    twice = run("zoo", "emergence", FOLLOWED, FOLLOWED)
    assert twice.exit_code == 2
    assert "several models are called" in twice.stderr


def test_curves_cannot_be_drawn_into_nowhere(tmp_path):
    result = run("zoo", "emergence", FOLLOWED, "-o", tmp_path / "no" / "where.png")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
    unknown = run("zoo", "emergence", FOLLOWED, "-o", tmp_path / "curves.docx")
    assert unknown.exit_code == 2
    assert "must end in" in unknown.stderr


def test_without_matplotlib_the_picture_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("zoo", "emergence", FOLLOWED, "-o", tmp_path / "curves.png")
    assert result.exit_code == 2
    assert "pip install attnsearch[report]" in result.stderr
