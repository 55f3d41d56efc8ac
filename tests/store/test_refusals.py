"""Whatever cannot be done is said in one line, and costs nothing that was there."""

import json
import resource
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from attnsearch.errors import StoreError
from attnsearch.store import Turn, layout_of, open_scan, open_store, scan_names


def assert_one_line(caught):
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [open_scan, open_store, scan_names])
def test_a_path_that_is_no_store_is_refused(read, tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zarr").mkdir()
    (tmp_path / "zarr" / "zarr.json").write_text('{"attributes": {}, "node_type": "group"}')
    for name in ("file", "folder", "zarr"):
        with pytest.raises(StoreError, match=f"{name} is not an attnsearch store") as caught:
            read(tmp_path / name)
        assert_one_line(caught)
    with pytest.raises(StoreError, match="absent does not exist"):
        read(tmp_path / "absent")


@pytest.mark.parametrize(("version", "age"), [(2, "an older"), (4, "a newer")])
@pytest.mark.parametrize("place", [".", "model"])
@pytest.mark.parametrize("read", [open_scan, open_store])
def test_another_schema_is_refused(read, place, version, age, scan, store):
    scan.write(store)
    file = store / place / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["attnsearch_schema"] = version
    file.write_text(json.dumps(metadata))
    other = rf"written by {age} attnsearch \(schema {version}, this one reads 3\)"
    with pytest.raises(StoreError, match=other) as caught:
        read(store)
    assert_one_line(caught)
    with pytest.raises(StoreError, match=other):
        scan.open(store)


def test_a_scan_without_a_block_is_refused(scan, store):
    scan.open(store)
    with pytest.raises(StoreError, match=r"'model' .* no finished block"):
        open_scan(store)
    assert open_store(store)["model"].sizes["sample"] == 0


def test_an_unknown_or_ambiguous_name_lists_the_scans(scan, store):
    scan.write(store, "one")
    with pytest.raises(StoreError, match="no scan called 'two'; it holds one"):
        open_scan(store, "two")
    scan.write(store, "three")
    with pytest.raises(StoreError, match="say which one: one, three"):
        open_scan(store)


def test_a_store_without_scans_says_so(scan, store):
    scan.write(store)
    (store / "model").rename(store.parent / "elsewhere")
    with pytest.raises(StoreError, match="no scan yet"):
        open_scan(store)


def test_a_lost_chunk_is_named_not_read_as_nothing(scan, store):
    scan.write(store)
    (store / "model" / "peak" / "c.1.0.0.0.0").unlink()
    acts = (
        lambda: open_scan(store)["peak"].compute(),
        lambda: open_store(store)["model/peak"].compute(),
        lambda: scan.open(store),
    )
    for act in acts:
        with pytest.raises(StoreError, match=r"peak/c\.1\.0\.0\.0\.0 .*is missing") as caught:
            act()
        assert_one_line(caught)
    assert np.isfinite(open_scan(store)["peak"][:3]).all()


def test_metadata_that_are_not_what_was_written_are_refused(scan, store):
    scan.write(store)
    for name in ("ledger/fixed.json", "peak/zarr.json", "seed/c.0", "zarr.json"):
        file = store / "model" / name
        data = file.read_bytes()
        for change in (file.unlink, lambda file=file, data=data: file.write_bytes(data[:-1])):
            change()
            with pytest.raises(StoreError, match=rf"model/{name} .*attnsearch verify") as caught:
                open_scan(store)
            assert_one_line(caught)
        file.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda scan: {"attributes": scan.attributes | {"sampler": "dpm"}}, 'sampler ."euler"'),
        (lambda scan: {"attributes": scan.attributes | {"extra": 1}}, "extra"),
        (
            lambda scan: {"attributes": scan.attributes | {"model": {"digest": "x", "sizes": []}}},
            r"model\.digest .*model\.sizes",
        ),
        (
            lambda scan: {"layout": replace(scan.layout, block=2)},
            r"layout\.block .3 there, 2 asked",
        ),
        (
            lambda scan: {"coordinates": scan.coordinates | {"seed": scan.coordinates["seed"] + 1}},
            "coordinate seed",
        ),
    ],
)
def test_a_different_scan_of_the_same_name_is_refused_and_left_alone(scan, store, change, named):
    scan.write(store, blocks=2)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=f"{named}.*choose another --name") as caught:
        replace(scan, **change(scan)).open(store)
    assert_one_line(caught)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "zarr.json", ".writing", "a@1", "x" * 129, "-x", "a b"]
)
def test_a_name_that_is_no_folder_name_is_refused(scan, store, name):
    with pytest.raises(StoreError, match="cannot be the name of a scan"):
        scan.open(store, name)
    assert not store.exists()


def test_a_place_that_cannot_be_written_is_refused(scan, tmp_path):
    with pytest.raises(StoreError, match=r"cannot write .* there is no folder") as caught:
        scan.open(tmp_path / "absent" / "store")
    assert_one_line(caught)
    (tmp_path / "file").write_text("text")
    with pytest.raises(StoreError, match="is a file"):
        scan.open(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("text")
    with pytest.raises(StoreError, match="folder is not an attnsearch store"):
        scan.open(tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["thesis.tex"]


def test_a_read_only_parent_is_refused(scan, tmp_path, monkeypatch):
    # Permissions do not bind root, who runs many a container, so the refusal is imitated.
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(StoreError, match=r"cannot write .*Permission denied") as caught:
        scan.open(tmp_path / "store")
    assert_one_line(caught)


@contextmanager
def file_size_limit(size):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_costs_no_committed_block(scan, store):
    writer = scan.open(store)
    writer.write_block(0, scan.block(0))
    with file_size_limit(1000), pytest.raises(StoreError, match="cannot write") as caught:
        writer.write_block(1, scan.block(1))
    assert_one_line(caught)
    assert writer.committed() == {0}
    assert open_scan(store).sizes["sample"] == 3
    writer.write_block(1, scan.block(1))
    scan.write(store)
    assert open_scan(store).sizes["sample"] == 7


def test_a_block_is_written_once(scan, store):
    scan.write(store)
    writer = scan.open(store)
    assert [writer.claim(block) for block in range(3)] == [Turn.DONE] * 3
    with pytest.raises(ValueError, match="block 1 is written already"):
        writer.write_block(1, scan.block(1))
    with pytest.raises(IndexError, match="block 3 of 3"):
        writer.write_block(3, scan.block(2))


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (lambda block: block.pop("peak"), ValueError, "peak"),
        (lambda block: block.update(more=np.zeros(3)), ValueError, "more"),
        (lambda block: block.update(peak=block["peak"][:2]), ValueError, "peak .* has shape"),
        (lambda block: block.update(thumbnail=block["thumbnail"] / 255), ValueError, "thumbnail"),
        (lambda block: block["sketch"].fill(np.nan), ValueError, "sketch .* not finite"),
        (lambda block: block["sketch"].fill(1e5), ValueError, "sketch .* not finite in float16"),
        (lambda block: block["entropy"].fill(np.inf), ValueError, "entropy .* not finite"),
    ],
)
def test_a_block_that_does_not_fit_is_refused_whole(scan, store, change, error, named):
    writer = scan.open(store)
    block = scan.block(0)
    change(block)
    with pytest.raises(error, match=named):
        writer.write_block(0, block)
    assert not writer.committed()
    assert not list((store / "model").glob("*/c.0.0.0.0*"))


def test_attributes_must_be_plain_and_not_the_stores_own(scan, store):
    for attributes in ({"layout": 1}, {"x": float("nan")}):
        with pytest.raises(ValueError, match=r"layout|JSON"):
            replace(scan, attributes=attributes).open(store)


def test_a_dataset_from_elsewhere_has_no_layout(scan, store):
    scan.write(store)
    dataset = open_scan(store)
    with pytest.raises(StoreError, match="layout of a scan"):
        layout_of(dataset.drop_attrs())
