"""`attnsearch rank --metric qk-relational` as a user types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attnsearch.cli import app
from attnsearch.models import Checkpoint, save_checkpoint

FIELDS = {
    "rank", "model", "layer", "head", "cosine", "projection", "energy", "p_value", "q_value",
}  # fmt: skip
SCREEN = ("--metric", "qk-relational")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["rank", *(str(word) for word in words)])


def refused(result: Result) -> str:
    """The one line a refused command prints."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("attnsearch: ")
    return line


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


def test_it_prints_json_by_size_of_projection(checkpoint: Path) -> None:
    rows = json.loads(run(checkpoint, *SCREEN, "--json").stdout)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert set(rows[0]) == FIELDS
    sizes = [abs(row["projection"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert all(0 < row["p_value"] <= row["q_value"] <= 1 for row in rows)


def test_it_prints_a_table_with_every_column_whole(checkpoint: Path) -> None:
    lines = run(checkpoint, *SCREEN, "--top", 2).stdout.splitlines()
    assert lines[1].split() == [
        "rank", "model", "head", "cosine", "projection", "energy", "p", "q",
    ]  # fmt: skip
    assert len(lines) == 4
    assert "…" not in "".join(lines)


def test_several_checkpoints_are_ranked_together(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(checkpoint.read_bytes())
    rows = json.loads(run(checkpoint, other, *SCREEN, "--json").stdout)
    assert [row["rank"] for row in rows] == list(range(1, 9))
    assert {row["model"] for row in rows} == {"tiny", "other"}
    assert "several models are called tiny" in refused(run(checkpoint, checkpoint, *SCREEN))


def test_a_metric_and_a_path_that_do_not_go_together_get_one_line_each(
    checkpoint: Path, tmp_path: Path
) -> None:
    line = refused(run(checkpoint))
    assert "relational needs a store of maps" in line
    assert "tiny.pt is a file" in line
    assert "needs the weights of a model" in refused(run(tmp_path, *SCREEN))
    assert "--where" in refused(run(checkpoint, *SCREEN, "--where", "relation == left"))
    assert "one store, not 2 paths" in refused(run(tmp_path, tmp_path))
    assert "no such file" in refused(run(tmp_path / "absent.pt", *SCREEN))
    unknown = refused(run(checkpoint, "--metric", "qk"))
    assert "unknown metric 'qk'; known: colour, " in unknown
    assert "qk-relational" in unknown
