"""Another package adds a metric and a command, without a line of ours."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import attnsearch
from attnsearch.cli import app
from attnsearch.errors import ConfigError
from attnsearch.metrics import METRICS
from attnsearch.plugins import plugins

MODULE = '''
import typer
import attnsearch
from attnsearch.metrics.evidence import Mean
from attnsearch.metrics.catalogue import entropy

@attnsearch.metric(unit="of the largest", low=0, high=1)
def focus(read):
    """How few words does the head attend to?

    One less the entropy.
    """
    evidence = entropy(read)
    return Mean(
        values=1 - evidence.values, known=evidence.known, strata=evidence.strata, signed=False
    )

def greet(name: str) -> None:
    """Greet somebody."""
    typer.echo(f"hello {name}")

something = 3
'''
ENTRY_POINTS = """
[attnsearch.metrics]
focus = others_metrics:focus
relational = others_metrics:focus
number = others_metrics:something
gone = others_metrics:nothing

[attnsearch.commands]
greet = others_metrics:greet
rank = others_metrics:greet
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that is installed as pip would do it."""
    (tmp_path / "others_metrics.py").write_text(MODULE)
    installed = tmp_path / "others_metrics-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: others-metrics\nVersion: 1.0\n"
    )
    (installed / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.cache_clear()
    yield
    plugins.cache_clear()


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_metric_of_another_package_ranks_and_takes_part_in_questions(store: Path) -> None:
    own = attnsearch.rank(store, "entropy")
    for row in attnsearch.rank(store, "focus"):
        (alike,) = (each for each in own if (each.model, each.address) == (row.model, row.address))
        assert row.score == pytest.approx(1 - alike.score)
    rows = json.loads(run("ask", store, "focus + entropy", "--json").stdout)
    assert [row["score"] for row in rows] == pytest.approx([1] * len(rows))


def test_it_is_listed_and_a_broken_one_is_said_to_be(store: Path) -> None:
    result = run("rank", "--list", "--json")
    listed = {row["metric"]: row for row in json.loads(result.stdout)}
    assert listed["focus"]["summary"] == "How few words does the head attend to?"
    assert listed["focus"]["high"] == 1
    assert listed["relational"]["summary"].startswith("Does the map of the relation words move")
    assert not {"number", "gone"} & listed.keys()
    assert "number of others-metrics is no Metric" in result.stderr
    assert "gone of others-metrics cannot be loaded" in result.stderr
    with pytest.raises(ConfigError, match="gone of others-metrics cannot be loaded"):
        attnsearch.rank(store, "gone")


def test_names_of_ours_stay_ours() -> None:
    assert METRICS["relational"].summary.startswith("Does the map of the relation words move")
    assert "Heads in order of a metric" in run("rank", "--help").stdout


def test_a_command_of_another_package_is_run_and_listed() -> None:
    assert run("greet", "world").stdout == "hello world\n"
    assert "Greet somebody" in run("greet", "--help").stdout
    assert "greet" in run("--help").stdout
    assert run("meet").exit_code == 2
