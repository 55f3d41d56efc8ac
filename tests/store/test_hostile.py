"""A store from a stranger, whose checksums are right and whose metadata lie, ends in one line."""

import copy
import json
import shutil
import tracemalloc
from pathlib import Path
from zlib import crc32

import pytest
from budget import examples
from hypothesis import Phase, given
from hypothesis import strategies as st

from attnsearch.errors import StoreError
from attnsearch.store import open_scan, open_store, repair, verify
from attnsearch.store.ledger import FileMark, FixedRecord, parse_block, parse_fixed

HOSTILE = (
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 1e308, -0.5, "", "x", "x" * 5000, "../../x",
    [], [[]], {}, {"a": {"b": []}}, [1], [10**15], [10**6, 10**6], "int64", "string", "NaN",
)  # fmt: skip
MEMORY = 2**28


@pytest.fixture(scope="module")
def written(make, tmp_path_factory):
    scan = make(samples=5, layers=1)
    store = tmp_path_factory.mktemp("written") / "store"
    scan.write(store, blocks=1)
    return scan, store


def leaves(value, path=()):
    """The place of every value in a document, its whole included."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


def planted(document, place, value):
    if not place:
        return value
    changed = copy.deepcopy(document)
    at = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return changed


def sign(store):
    """Make every checksum right again, as someone would who means harm."""
    group = store / "model"
    fixed = parse_fixed((group / "ledger/fixed.json").read_bytes())
    assert fixed is not None
    marks = {name: FileMark.of((group / name).read_bytes()) for name in fixed.files}
    signed = FixedRecord(files=marks)
    (group / "ledger/fixed.json").write_bytes(signed.line())
    for path in (group / "ledger").glob("[0-9]*.json"):
        record = parse_block(path.read_bytes())
        assert record is not None
        values = json.loads(record.line())
        values["scan"] = signed.fingerprint
        values["files"] = {n: FileMark.of((group / n).read_bytes()) for n in values["files"]}
        path.write_bytes(line(values))


def line(values):
    del values["crc"]
    encode = lambda v: json.dumps(v, sort_keys=True, separators=(",", ":")).encode() + b"\n"  # noqa: E731
    return encode({**values, "crc": crc32(encode(values))})


def attempt(action):
    """Do it; whatever it says, it is one short line, and it takes no memory to speak of."""
    tracemalloc.start()
    said = ""
    try:
        action()
    except StoreError as error:
        said = str(error)
    except MemoryError:
        pass  # said in one line by the command
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "\n" not in said
    assert len(said) < 2000
    assert not said or said.isprintable()
    assert peak < MEMORY


def use(scan, store):
    attempt(lambda: open_store(store).load())
    attempt(lambda: open_scan(store, "model").load())
    attempt(lambda: scan.open(store))
    attempt(lambda: repair(store, verify(store)))


@examples(4, deep=100, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.sampled_from(
        [
            "zarr.json", "model/zarr.json", "model/sketch/zarr.json", "model/prompt/zarr.json",
            "model/sample/zarr.json", "model/flagged/zarr.json",
        ]
    ),
    st.integers(0, 10**6),
    st.sampled_from(HOSTILE),
)  # fmt: skip
def test_metadata_that_lie_under_right_checksums(written, tmp_path_factory, name, where, value):
    scan, original = written
    store = tmp_path_factory.mktemp("hostile") / "store"
    shutil.copytree(original, store)
    document = json.loads((store / name).read_bytes())
    places = list(leaves(document))
    changed = planted(document, places[where % len(places)], value)
    (store / name).write_text(json.dumps(changed))
    sign(store)
    use(scan, store)
    shutil.rmtree(store)


@examples(5, deep=50, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.sampled_from(["ledger/fixed.json", "ledger/0.json"]),
    st.integers(0, 10**6),
    st.sampled_from(HOSTILE),
)
def test_records_that_lie_under_right_checksums(written, tmp_path_factory, name, where, value):
    scan, original = written
    store = tmp_path_factory.mktemp("hostile") / "store"
    shutil.copytree(original, store)
    document = json.loads((store / "model" / name).read_bytes())
    places = [place for place in leaves(document) if place]
    changed = planted(document, places[where % len(places)], value)
    changed.setdefault("crc", 0)
    (store / "model" / name).write_bytes(line(changed))
    use(scan, store)
    shutil.rmtree(store)


@examples(4, deep=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_data_that_lie_under_right_checksums(written, tmp_path_factory, file, position, data):
    scan, original = written
    store = tmp_path_factory.mktemp("hostile") / "store"
    shutil.copytree(original, store)
    files = sorted(path for path in (store / "model").rglob("c.*") if path.is_file())
    files = [path for path in files if path.name.startswith("c.0") or path.parent.name == "prompt"]
    path = files[file % len(files)]
    before = path.read_bytes()
    at = position % (len(before) + 1)
    path.write_bytes(before[:at] + data + before[at + len(data) :])
    sign(store)
    use(scan, store)
    shutil.rmtree(store)


def test_a_layout_of_absurd_size_is_refused_before_memory_is_asked_for(written, tmp_path):
    scan, original = written
    for field, size in [("samples", 2**40), ("layers", 10**12), ("block", 2**62), ("order", 10**9)]:
        store = tmp_path / field
        shutil.copytree(original, store)
        document = json.loads((store / "model/zarr.json").read_bytes())
        document["attributes"]["layout"][field] = size
        (store / "model/zarr.json").write_text(json.dumps(document))
        sign(store)
        with pytest.raises(StoreError, match=r"layout of a scan|does not fit"):
            open_scan(store)
        use(scan, store)


def test_deep_metadata_do_not_exhaust_the_stack(written, tmp_path):
    scan, original = written
    for name in ("zarr.json", "model/zarr.json", "model/peak/zarr.json", "model/ledger/0.json"):
        store = tmp_path / name.replace("/", "-")
        shutil.copytree(original, store)
        (store / name).write_text("[" * 200_000)
        if "ledger" not in name:
            sign(store)
        use(scan, store)


def test_names_that_lead_out_of_the_store_are_not_followed(written, tmp_path):
    scan, original = written
    outside = tmp_path / "outside"
    outside.write_text("mine")
    store = tmp_path / "store"
    shutil.copytree(original, store)
    fixed = store / "model/ledger/fixed.json"
    values = json.loads(fixed.read_bytes())
    values["files"]["../../outside"] = FileMark.of(b"mine")
    fixed.write_bytes(line(values))
    use(scan, store)
    assert outside.read_text() == "mine"
    assert Path(outside).exists()
