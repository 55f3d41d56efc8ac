"""What is found without a path: the store, packaged models, the name of a scan."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.errors import CheckpointError, StoreError
from attnsearch.lookup import (
    STORE_VARIABLE,
    USUAL_STORE,
    check_scan_name,
    find_checkpoint,
    find_model,
    find_store,
    name_scan,
    scan_name,
)
from attnsearch.zoo import demonstration, packaged


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_store_is_the_one_named_then_that_of_the_environment_then_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("named.zarr", "told.zarr", USUAL_STORE):
        (tmp_path / name).mkdir()
    assert find_store() == USUAL_STORE
    assert "store: attnsearch.zarr (in the working directory)" in capsys.readouterr().err
    monkeypatch.setenv(STORE_VARIABLE, "told.zarr")
    assert find_store() == "told.zarr"
    assert "store: told.zarr (from ATTNSEARCH_STORE)" in capsys.readouterr().err
    for named in ("named.zarr", Path("named.zarr"), "s3://bucket/maps"):
        assert find_store(named) == named
    assert capsys.readouterr() == ("", "")  # nothing to say of what was named


@pytest.mark.parametrize("value", [None, ""])
def test_without_any_store_one_line_says_how_to_make_one(
    value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if value is not None:
        monkeypatch.setenv(STORE_VARIABLE, value)
    with pytest.raises(StoreError, match=r"no store is named.*`attnsearch scan MODEL` makes one"):
        find_store()
    assert capsys.readouterr().err == ""
    assert find_store(make=True) == USUAL_STORE


def test_a_store_that_is_not_there_is_named_with_what_it_may_have_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "maps.zarr").mkdir()
    with pytest.raises(StoreError, match=r"map\.zarr does not exist; did you mean maps\.zarr\?"):
        find_store("map.zarr")
    with pytest.raises(StoreError, match="packaged model and no store; `attnsearch scan"):
        find_store(demonstration().stem)
    monkeypatch.setenv(STORE_VARIABLE, "gone.zarr")
    with pytest.raises(StoreError, match=r"ATTNSEARCH_STORE names gone\.zarr, which does not"):
        find_store()
    assert find_store(make=True) == "gone.zarr"


def test_no_store_is_made_of_a_file_or_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        find_store("file", make=True)
    with pytest.raises(StoreError, match="there is no folder"):
        find_store(Path("no/maps.zarr"), make=True)


@pytest.mark.parametrize("kind", [str, Path])
def test_every_packaged_model_is_found_by_name(kind: type) -> None:
    for path in packaged():
        assert find_model(kind(path.stem)) == path


def test_a_file_of_the_name_wins(tmp_path: Path) -> None:
    name = demonstration().stem
    (tmp_path / name).touch()
    assert find_model(name) == Path(name)


def test_what_is_no_model_is_named_with_what_it_may_have_been(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").touch()
    for wrong, meant in {
        "rtep-femto-sed0": "rtep-femto-seed0",
        "rtep-femto-seed0.pt": "rtep-femto-seed0",
        "mime.pt": "mine.pt",
    }.items():
        with pytest.raises(CheckpointError, match=rf"{wrong}; did you mean {meant}\?"):
            find_model(wrong)
    with pytest.raises(CheckpointError, match="nosuch; `attnsearch zoo` lists the packaged models"):
        find_model("nosuch")
    with pytest.raises(CheckpointError, match=r"^no such file: no/mine.pt$"):
        find_model("no/mine.pt")


def test_a_folder_is_no_checkpoint_and_the_one_in_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match=r"run is a folder, not a checkpoint$"):
        find_checkpoint("run")
    (tmp_path / "run" / "model.pt").touch()
    with pytest.raises(CheckpointError, match=r"did you mean run/model\.pt\?"):
        find_checkpoint("run")
    assert find_checkpoint("run/model.pt") == Path("run/model.pt")


def test_a_scan_is_named_after_the_file_or_the_folder_of_a_run(tmp_path: Path) -> None:
    assert scan_name("zoo/rtep.pt") == "rtep"
    assert scan_name(Path("runs/seed3/model.pt")) == "seed3"
    assert scan_name("zoo/rtep.pt", control=True) == "rtep-control"
    (tmp_path / "pixart").mkdir()
    assert scan_name("pixart") == "pixart"


def test_what_cannot_be_in_a_name_is_left_out_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for file, name in {
        "my model (final).pt": "my-model-final",
        "my m\N{LATIN SMALL LETTER O WITH DIAERESIS}del v1.0 (final).pt": "my-model-v1.0-final",
        ".model.pt": "model",
        "--odd--.pt": "odd",
    }.items():
        assert scan_name(file) == name
        assert name_scan(file) == name
        assert f"{file} is scanned as {name}; --name" in capsys.readouterr().err
    assert name_scan("model_v1.0-final.pt") == "model_v1.0-final"
    assert capsys.readouterr().err == ""


@given(
    own=st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
    )
)
def test_every_file_gives_a_name_that_a_scan_can_have(own: str) -> None:
    for control in (False, True):
        name = scan_name(f"folder/{own}.pt", control=control)
        check_scan_name(name)


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "x" * 129])
def test_a_name_that_no_scan_can_have_is_refused(name: str) -> None:
    with pytest.raises(StoreError, match="--name"):
        check_scan_name(name)
