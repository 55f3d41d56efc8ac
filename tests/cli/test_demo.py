"""The promise of the README: the packaged model has relational heads, and they come out first."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attnsearch.cli import app
from attnsearch.zoo import packaged


@pytest.mark.slow
def test_the_demonstration_model_has_a_significant_relational_head(tmp_path: Path) -> None:
    runner = CliRunner()
    store = tmp_path / "demo.zarr"
    scan = runner.invoke(app, ["scan", str(packaged()[0]), "--store", str(store), "--seeds", "1"])
    assert scan.exit_code == 0, scan.output
    ranking = json.loads(runner.invoke(app, ["rank", str(store), "--json"]).stdout)
    assert ranking[0]["q_value"] < 0.01
    assert abs(ranking[0]["score"]) > 0.5
    question = ["ask", str(store), "object1 -> relation", "--json", "--top", "1"]
    answer = json.loads(runner.invoke(app, question).stdout)[0]
    positive = next(row for row in ranking if row["score"] > 0)
    assert (answer["layer"], answer["head"]) == (positive["layer"], positive["head"])


def test_every_packaged_model_has_its_log_and_evaluation_beside_it() -> None:
    for path in packaged():
        evaluation = json.loads(path.with_suffix(".evaluation.json").read_text())
        assert evaluation["in_distribution"]["relation_loose"]["value"] >= 0.8
        assert path.with_suffix(".log.jsonl").stat().st_size > 0
        assert path.with_suffix(".config.json").stat().st_size > 0
