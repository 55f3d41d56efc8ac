"""What commands say of a store that is not whole, not where it was, or was put in order by hand."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attnsearch import scanning
from attnsearch.cli import app
from attnsearch.models import Checkpoint, save_checkpoint
from attnsearch.store import ScanWriter, make_store, open_scan

WORDS = ("--seeds", 1, "--steps", 1, "--batch", 2)
PARTIAL = "tiny: 21 of 48 blocks; the scan is not complete"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result: Result) -> str:
    """The line that a refused command ends with."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr.splitlines()[-1]


def files_of(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of 48 blocks."""
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    result = run("scan", checkpoint, "--store", store, *WORDS)
    assert result.exit_code == 0, result.output
    return store


@pytest.fixture(scope="module")
def partial(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of which there are 21 of 48 blocks, and one that is whole."""
    store = tmp_path_factory.mktemp("partial") / "s.zarr"
    shutil.copytree(whole, store)
    shutil.copytree(store / "tiny", store / "twin")
    packed = store / "tiny" / "ledger" / "blocks.jsonl"
    packed.write_bytes(b"".join(packed.read_bytes().splitlines(keepends=True)[:21]))
    return store


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


ASKED: dict[str, tuple[str, ...]] = {
    "rank": ("--metric", "entropy"),
    "ask": ("mass(relation)",),
    "aggregate": ("entropy", "--keep", "layer"),
    "similar": ("--to", "tiny:L0H0"),
}


@pytest.mark.parametrize("verb", ASKED)
def test_an_answer_from_a_scan_that_is_not_whole_says_so(partial: Path, verb: str) -> None:
    result = run(verb, partial, *ASKED[verb])
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines().count(PARTIAL) == 1
    assert "twin: " not in result.stderr
    rows = json.loads(run(verb, partial, *ASKED[verb], "--json").stdout)
    done = {"tiny": 21, "twin": 48}
    for row in rows:
        model = row["model"] if "model" in row else row["head"].split(":")[0]
        assert (row["blocks_done"], row["blocks"]) == (done[model], 48)
    assert rows


def test_clusters_say_it_of_all_scans_together(partial: Path) -> None:
    for words in ((), ("--behaviours", "2")):
        result = run("cluster", partial, *words, "--json")
        assert result.exit_code == 0, result.output
        assert result.stderr.splitlines().count(PARTIAL) == 1
        for row in json.loads(result.stdout):
            assert (row["blocks_done"], row["blocks"]) == (69, 96)


def test_info_says_it_too(partial: Path) -> None:
    result = run("info", partial, "--json")
    assert result.stderr.splitlines() == [PARTIAL]
    facts = json.loads(result.stdout)
    assert (facts["tiny blocks_done"], facts["tiny blocks"]) == (21, 48)
    assert (facts["twin blocks_done"], facts["twin blocks"]) == (48, 48)


def test_a_scan_without_a_block_is_not_passed_over_in_silence(
    partial: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    shutil.copytree(partial, store)
    (store / "tiny" / "ledger" / "blocks.jsonl").unlink()
    for words in (("rank", store, "--metric", "entropy"), ("info", store)):
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert "tiny: 0 of 48 blocks; the scan is not complete" in result.stderr.splitlines()


def test_of_a_whole_scan_nothing_is_said(whole: Path) -> None:
    assert run("info", whole).stderr == ""
    assert "blocks" not in run("rank", whole, "--metric", "entropy").stderr


def away_after(monkeypatch: pytest.MonkeyPatch, blocks: int, away: Callable[[], object]) -> None:
    """Something happens to the store when so many blocks of a scan are written."""
    real, left = ScanWriter.write_block, blocks

    def write_block(writer: ScanWriter, block: int, arrays: dict[str, object]) -> None:
        nonlocal left
        real(writer, block, arrays)  # type: ignore[arg-type]
        left -= 1
        if left == 0:
            away()

    monkeypatch.setattr(ScanWriter, "write_block", write_block)


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_scan_whose_store_goes_stops_at_the_next_block(
    checkpoint: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    store, moved = tmp_path / "s.zarr", tmp_path / "moved.zarr"
    with monkeypatch.context() as patch:
        away_after(
            patch, 6, lambda: store.rename(moved) if how == "moved" else shutil.rmtree(store)
        )
        result = run("scan", checkpoint, "--store", store, *WORDS)
    assert refused(result) == (
        f"attnsearch: {store} is gone: it was moved or removed after it was opened; "
        "give the place where it is now"
    )
    assert "complete" not in result.output
    assert not store.exists()
    if how == "moved":
        assert open_scan(moved).attrs["blocks_done"] in (6, 7)
        assert run("scan", checkpoint, "--store", moved, *WORDS).exit_code == 0
        assert files_of(moved) == files_of(whole)


def test_a_scan_that_is_removed_while_it_is_written_is_not_made_anew(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    away_after(monkeypatch, 2, lambda: shutil.rmtree(store / "tiny"))
    line = refused(run("scan", checkpoint, "--store", store, *WORDS))
    assert line.startswith(f"attnsearch: scan tiny of {store} is gone: it was removed, renamed or")
    assert [path.name for path in store.iterdir()] == ["zarr.json"]


def test_what_is_not_complete_is_not_said_to_be(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    real = scanning.execute_plan
    make_store(store)
    monkeypatch.setattr(
        scanning,
        "execute_plan",
        lambda plan, subject, store, *_: real(plan, subject, store, blocks=range(6)),
    )
    result = run("scan", checkpoint, "--store", store, *WORDS)
    assert refused(result).endswith("is not complete: 6 of 48 blocks; run the same command again")
    assert "is complete" not in result.stderr


@pytest.mark.parametrize(
    "verb", [("rank",), ("info",), ("verify",), ("aggregate", "entropy"), ("store", "remove", "x")]
)
def test_a_dangling_link_is_said_to_be_one(tmp_path: Path, verb: tuple[str, ...]) -> None:
    link = tmp_path / "latest.zarr"
    link.symlink_to("run-7.zarr")
    words = (*verb[:-1], link, verb[-1]) if len(verb) > 1 else (*verb, link)
    assert refused(run(*words)) == (
        f"attnsearch: {link} is a link to run-7.zarr, which does not exist; "
        "remove the link, or name another store"
    )


def test_scanning_into_a_dangling_link_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.zarr"
    link.symlink_to("run-7.zarr")
    assert "is a link to run-7.zarr" in refused(run("scan", checkpoint, "--store", link, *WORDS))
    assert os.listdir(tmp_path) == ["latest.zarr"]


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("prompts.json", '["red square is above blue circle"]', "one JSON document"),
        ("prompts.csv", "prompt,seed\nred square is above blue circle,1\n", "a table"),
    ],
)
def test_other_forms_are_not_taken_for_prompts(
    checkpoint: Path, tmp_path: Path, name: str, text: str, form: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    line = refused(run("scan", checkpoint, "--store", tmp_path / "s", "--prompts", path))
    assert line == (
        f"attnsearch: {path} is {form}; prompts are read from lines of text (.txt) or "
        "JSON lines (.jsonl), one prompt a line"
    )
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("tool", ["rm", "mv"])
def test_after_plain_tools_verify_says_what_is_the_case(copy: Path, tool: str) -> None:
    if tool == "rm":
        shutil.rmtree(copy / "tiny")
    else:
        (copy / "tiny").rename(copy / "other")
    found = run("verify", copy)
    assert found.exit_code == 0
    changed = "tiny no longer there" + ("; other not listed" if tool == "mv" else "")
    assert found.stderr.splitlines() == [
        f"s.zarr, metadata: the list of scans in zarr.json is out of date: {changed}",
        "nothing is damaged; --repair writes the list anew",
    ]
    (finding,) = json.loads(run("verify", copy, "--json").stdout)[0]["findings"]
    assert finding["damage"] is False
    repaired = run("verify", copy, "--repair")
    assert repaired.exit_code == 0
    assert repaired.stderr.splitlines()[-1] == "the list of scans is written anew"
    assert run("verify", copy).stderr == ""


def test_scans_are_renamed_copied_merged_and_removed(copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    renamed = run("store", "rename", copy, "tiny", "first")
    assert renamed.stderr == f"scan tiny of {copy} is called first now\n"
    assert run("publish", copy, "--to", other, "--scan", "first").exit_code == 0
    run("store", "rename", other, "first", "second")
    assert run("publish", other, "--to", copy).exit_code == 0
    listed = [check["scan"] for check in json.loads(run("verify", copy, "--json").stdout)]
    assert listed == ["first", "second"]
    removed = run("store", "remove", copy, "first")
    assert removed.stderr == f"scan first of {copy} is removed\n"
    assert files_of(copy) == files_of(other)
    assert refused(run("store", "remove", copy, "first")) == (
        f"attnsearch: {copy} holds no scan called 'first'; it holds second"
    )
