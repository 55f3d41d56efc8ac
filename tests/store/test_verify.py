"""Whatever happens to a byte of a store is found, and can be put right."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from budget import examples
from hypothesis import Phase, given
from hypothesis import strategies as st

from attnsearch.errors import StoreError
from attnsearch.store import Turn, count_blocks, open_scan, repair, verify
from attnsearch.store.checks import wrong_numbers


def tree_bytes(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def findings(store):
    return {(check.scan, each.block) for check in verify(store) for each in check.findings}


@pytest.fixture(scope="module")
def written(make, tmp_path_factory):
    """A finished scan with a flagged sample, an unfinished one, and where they lie."""
    scan, other = make(flagged=(4,)), make(samples=5, layers=1)
    store = tmp_path_factory.mktemp("written") / "store"
    scan.write(store)
    other.write(store, "other", blocks=1)
    return scan, other, store


@pytest.fixture
def copy(written, tmp_path):
    """The same, to be damaged."""
    scan, other, store = written
    shutil.copytree(store, tmp_path / "store")
    return scan, other, tmp_path / "store"


def test_a_store_as_written_has_no_findings_and_is_counted(written):
    _, _, store = written
    told = []
    whole, begun = verify(store, advance=told.append)
    assert (whole.scan, whole.blocks, whole.committed, whole.samples) == ("model", 3, 3, 7)
    assert (begun.scan, begun.blocks, begun.committed, begun.samples) == ("other", 2, 1, 3)
    assert (whole.flagged, begun.flagged) == (1, 0)
    assert findings(store) == set()
    assert sum(told) == count_blocks(store) == 4
    assert [check.scan for check in verify(store, "other")] == ["other"]


def damage(data, position, kind):
    if kind == "flip":
        return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
    if kind == "cut":
        return data[:position]
    if kind == "zero":
        return data[:position] + bytes(len(data) - position)
    return data + b"more"


def restore(scan, other, store):
    """What a user would do."""
    repair(store, verify(store))
    scan.write(store)
    other.write(store, "other", blocks=1)


@examples(8, deep=100, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.integers(0, 10**6),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["flip", "cut", "zero", "more", "remove"]),
)
def test_damage_to_any_file_is_found_and_repaired_to_the_same_bytes(
    written, tmp_path_factory, file, position, kind
):
    scan, other, store = written
    whole = tree_bytes(store)
    copied = tmp_path_factory.mktemp("damaged") / "store"
    shutil.copytree(store, copied)
    name = sorted(whole)[file % len(whole)]
    data = whole[name]
    if kind == "remove":
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(damage(data, int(position * len(data)), kind))
    if (copied / name).exists() and (copied / name).read_bytes() == data:
        return  # zeros where there were zeros
    # A record that is no more is a block that never was.
    assert findings(copied) or (kind == "remove" and "/ledger/" in name)
    restore(scan, other, copied)
    assert findings(copied) == set()
    assert tree_bytes(copied) == whole
    shutil.rmtree(copied)


def test_a_damaged_block_is_named_and_dropping_it_costs_no_other(copy):
    scan, _, store = copy
    (store / "model/entropy/c.1.0.0.0.0").write_bytes(b"")
    (check, _) = verify(store)
    (finding,) = check.findings
    assert finding.block == 1
    assert finding.what.startswith("entropy/c.1.0.0.0.0 has 0 bytes, not ")
    before = tree_bytes(store)
    assert repair(store, [check]) == 1
    assert open_scan(store, "model")["sample"].values.tolist() == [0, 1, 2, 6]
    after = tree_bytes(store)
    gone = {f"model/{spec.file(1)}" for spec in scan.layout.arrays()}
    assert before.keys() - after.keys() == gone
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"model/ledger/blocks.jsonl"}


def test_checking_writes_nothing(copy):
    *_, store = copy
    (store / "model/entropy/c.1.0.0.0.0").write_bytes(b"")
    before = tree_bytes(store)
    verify(store)
    assert tree_bytes(store) == before


def test_a_block_that_is_being_written_is_not_dropped(copy):
    scan, _, store = copy
    (store / "model/entropy/c.1.0.0.0.0").write_bytes(b"")
    checks = verify(store)
    repair(store, checks)
    writer = scan.open(store)
    assert writer.claim(1) is Turn.OURS
    with pytest.raises(StoreError, match="being written by process"):
        repair(store, checks)


def test_a_store_whose_root_is_gone_is_restored(copy):
    *_, store = copy
    whole = tree_bytes(store)
    (store / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"zarr\.json .* damaged; `attnsearch verify .* --repair`"):
        open_scan(store, "model")
    assert findings(store) == {("", None)}
    repair(store, verify(store))
    assert tree_bytes(store) == whole


def test_blocks_of_another_scan_under_the_same_name_are_kept(make, copy):
    _, _, store = copy
    (store / "model/ledger/fixed.json").unlink()
    before = tree_bytes(store)
    with pytest.raises(StoreError, match="different scan; choose another --name"):
        make(samples=6).write(store)
    assert tree_bytes(store) == before


def test_a_folder_that_is_no_scan_is_not_written_into(make, copy):
    scan, _, store = copy
    (store / "thesis").mkdir()
    (store / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"thesis is no scan: it holds thesis/chapter1\.tex"):
        scan.write(store, "thesis")
    assert (store / "thesis" / "chapter1.tex").read_text() == "years of work"


def test_what_is_no_store_cannot_be_checked(tmp_path, copy):
    *_, store = copy
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(StoreError, match=r"does not exist|is not an attnsearch store"):
            verify(path)
    with pytest.raises(StoreError, match="no scan called 'nobody'; it holds model, other"):
        verify(store, "nobody")


def check_numbers(scan, change=None, **attributes):
    block = scan.block(1)
    arrays = {
        spec.name: block[spec.name].astype(spec.dtype, copy=True) for spec in scan.layout.arrays()
    }
    for values in arrays.values():
        if values.dtype.kind == "f":
            values[arrays["flagged"]] = np.nan
    if change:
        change(arrays)
    return wrong_numbers(scan.layout, scan.attributes | attributes, arrays)


def test_the_numbers_of_real_attention_have_nothing_wrong(make):
    for scan in (make(), make(flagged=(4,)), make(flagged=(3, 4, 5)), make(order=3, regions=())):
        assert check_numbers(scan) == []
    # What image tokens attend to one another is not sketched.
    assert check_numbers(make(), attention="joint") == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: a["sketch"][..., 1, 0].__iadd__(0.5), "does not add up to one"),
        (lambda a: a["sketch"][0, ..., 2].__iadd__(0.5), "does not add up to one"),
        (lambda a: a["sketch"].__imul__(1.1), "does not add up to one"),
        (lambda a: a["sketch"][0, ..., 0, 0].__isub__(4), "negative"),
        (lambda a: a["sketch"][0, ..., 1].fill(np.nan), "sketch is not finite"),
        (lambda a: a["energy"].__imul__(0.1), "more than the energy"),
        (lambda a: a["entropy"].__iadd__(3), "entropy above 2.3"),
        (lambda a: a["entropy"].__imul__(-1), "entropy below 0"),
        (lambda a: a["peak"].__iadd__(1), "peak above 1"),
        (lambda a: a["peak"].__imul__(0.01), "peak below 0.1"),
        (lambda a: a["peak"].fill(np.inf), "peak is not finite"),
        (lambda a: a["flagged"].fill(True), "flagged sample is not NaN"),
    ],
)
def test_numbers_that_no_attention_has_are_named(scan, change, named):
    found = check_numbers(scan, change)
    assert any(named in what for what in found), found


def test_joint_attention_may_not_exceed_one(scan):
    change = lambda arrays: arrays["sketch"][..., 0, 0].__iadd__(1)  # noqa: E731
    assert any("more than one" in what for what in check_numbers(scan, change, attention="joint"))


@pytest.mark.parametrize("value", [None, 0, -3, 2.5, "ten", [], [0, 4], [3], {"a": 1}, True])
def test_attributes_that_tell_nothing_are_not_asked(scan, value):
    assert check_numbers(scan, keys=value, grid=value, attention=value) == []


def test_a_block_of_wrong_numbers_is_found_though_every_checksum_is_right(make, store: Path):
    scan = make()
    wrong = replace(scan, attributes=scan.attributes | {"keys": 2})  # entropies are larger
    wrong.write(store)
    (check,) = verify(store)
    assert {finding.block for finding in check.findings} == {0, 1, 2}
    assert any("entropy above 0.693" in finding.what for finding in check.findings)


def test_a_creation_that_was_killed_before_the_root_lists_it_is_no_damage(make, scan, store):
    scan.write(store)
    root = (store / "zarr.json").read_bytes()
    make(layers=1).open(store, "other")
    (store / "zarr.json").write_bytes(root)
    assert findings(store) == set()
    (store / "zarr.json").write_bytes(root.replace(b"float16", b"float32"))
    assert findings(store) == {("", None)}
