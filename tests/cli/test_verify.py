"""`attnsearch verify` through the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attnsearch.cli import app
from attnsearch.models import Checkpoint, save_checkpoint


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


@pytest.fixture
def scanned(checkpoint: Path, tmp_path: Path) -> tuple[tuple[object, ...], Path]:
    """The words that made a store, and the store."""
    store = tmp_path / "s.zarr"
    words = ("scan", checkpoint, "--store", store, "--seeds", 1, "--steps", 1, "--batch", 32)
    assert run(*words).exit_code == 0
    return words, store


def files_of(store: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_a_sound_store_is_said_to_be(scanned: tuple[tuple[object, ...], Path]) -> None:
    _, store = scanned
    result = run("verify", store)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2].split() == ["tiny", "3", "3", "96", "0", "0"]
    (check,) = json.loads(run("verify", store, "--json").stdout)
    assert check == {
        "scan": "tiny", "blocks": 3, "committed": 3, "samples": 96, "flagged": 0, "findings": [],
    }  # fmt: skip


def test_damage_is_found_dropped_and_scanned_again(
    scanned: tuple[tuple[object, ...], Path],
) -> None:
    words, store = scanned
    whole = files_of(store)
    chunk = store / "tiny/peak/c.1.0.0.0.0"
    chunk.write_bytes(whole[chunk][:-1])
    found = run("verify", store)
    assert found.exit_code == 2
    assert "tiny, block 1: peak/c.1.0.0.0.0 has" in found.stderr
    last = found.stderr.splitlines()[-1]
    assert last.startswith("attnsearch: ")
    assert "--repair" in last
    refused = run(*words)
    assert refused.exit_code == 2
    assert "--repair" in refused.stderr
    repaired = run("verify", store, "--repair")
    assert repaired.exit_code == 0
    assert "1 blocks dropped" in repaired.stderr
    assert run(*words).exit_code == 0
    assert files_of(store) == whole


def test_damaged_metadata_is_restored_by_scanning_again(
    scanned: tuple[tuple[object, ...], Path],
) -> None:
    words, store = scanned
    whole = files_of(store)
    (store / "tiny/seed/c.0").write_bytes(b"")
    (store / "zarr.json").write_bytes(b"{")
    for verb in ("rank", "info"):
        refused = run(verb, store)
        assert refused.exit_code == 2
        assert "verify" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    repaired = run("verify", store, "--repair")
    assert repaired.exit_code == 2
    assert "scan again to restore" in repaired.stderr
    assert run(*words).exit_code == 0
    assert files_of(store) == whole


def test_what_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        result = run("verify", path)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
