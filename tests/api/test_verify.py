"""`verify` in Python: checks and findings as tables."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attnsearch.api.verify import verify
from attnsearch.cli.application import app
from attnsearch.errors import StoreError
from attnsearch.models import Checkpoint, save_checkpoint


@pytest.fixture
def store(tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    path, store = tmp_path / "tiny.pt", tmp_path / "s.zarr"
    save_checkpoint(tiny_checkpoint, path)
    how = ["--seeds", "1", "--steps", "1", "--batch", "32"]
    scanned = CliRunner().invoke(app, ["scan", str(path), "--store", str(store), *how])
    assert scanned.exit_code == 0, scanned.output
    return store


def test_a_sound_store_has_no_finding(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = verify(str(store))
    (check,) = found
    assert (check.scan, check.committed, check.blocks, check.samples) == ("tiny", 3, 3, 96)
    assert len(found.findings) == found.damaged == 0
    assert found.to_pandas()["samples"].tolist() == [96]
    assert found.save(tmp_path / "checks.csv").exists()
    printed = CliRunner().invoke(app, ["verify", str(store), "--json"]).stdout
    assert json.loads(printed) == found.records()
    monkeypatch.setenv("ATTNSEARCH_STORE", str(store))
    assert verify() == found


def test_damage_is_a_finding_and_is_repaired(store: Path) -> None:
    chunk = store / "tiny/peak/c.1.0.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    found = verify(store)
    (finding,) = found.findings
    assert (finding.scan, finding.block, finding.damage) == ("tiny", 1, True)
    assert finding.what in found.notes[0]
    assert (found.dropped, found.unrepaired) == (0, ())
    assert found.findings.to_pandas()["block"].tolist() == [1]
    printed = CliRunner().invoke(app, ["verify", str(store), "--json"]).stdout
    assert json.loads(printed) == found.records()
    repaired = verify(store, repair=True)
    assert (repaired.damaged, repaired.dropped, repaired.unrepaired) == (1, 1, [])
    assert [check.committed for check in verify(store)] == [2]


def test_metadata_that_a_repair_cannot_mend_are_named(store: Path) -> None:
    (store / "tiny/seed/c.0").write_bytes(b"")
    assert verify(store, repair=True).unrepaired == ["tiny"]


def test_what_is_not_there_is_refused(store: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        verify(store.with_name("absent.zarr"))
    with pytest.raises(StoreError, match="no scan called 'other'"):
        verify(store, scan="other")
