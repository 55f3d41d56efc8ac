"""The promise of the README: the packaged model has relational heads, and they come out first."""

import json
from dataclasses import asdict
from pathlib import Path

from typer.testing import CliRunner

from attnsearch.cli import app
from attnsearch.zoo import beside, demonstration, packaged, summarise


def test_the_demonstration_model_has_a_significant_relational_head(tmp_path: Path) -> None:
    runner = CliRunner()
    store = tmp_path / "demo.zarr"
    words = ["scan", demonstration().stem, "--store", str(store), "--seeds", "1"]
    scan = runner.invoke(app, words)
    assert scan.exit_code == 0, scan.output
    ranking = json.loads(runner.invoke(app, ["rank", str(store), "--json"]).stdout)
    assert ranking[0]["q_value"] < 0.01
    assert abs(ranking[0]["score"]) > 0.5
    question = ["ask", str(store), "object1 -> relation", "--json", "--top", "1"]
    answer = json.loads(runner.invoke(app, question).stdout)[0]
    positive = next(row for row in ranking if row["score"] > 0)
    assert (answer["layer"], answer["head"]) == (positive["layer"], positive["head"])


def test_every_packaged_model_has_what_is_known_of_it_beside_it() -> None:
    for path in packaged():
        summary = summarise(path)
        unknown = {name for name, value in asdict(summary).items() if value is None}
        assert unknown <= {"relation_loose_held_out"}  # a task may hold nothing out
        assert beside(path, "log").stat().st_size > 0


def test_the_demonstration_model_paints_the_asked_relation() -> None:
    summary = summarise(demonstration())
    assert summary.relation_loose is not None
    assert summary.relation_loose >= 0.8
