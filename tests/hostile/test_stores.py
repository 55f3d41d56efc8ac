"""A store that was damaged, or that lies, costs whoever reads it one line."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
from budget import examples
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attnsearch.cli import app

STORE_TESTS = Path(__file__).parents[1] / "store"

READERS = (
    ("rank",),
    ("ask", "object1 -> relation"),
    ("info",),
    ("rank", "--scan", "model"),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    make = runpy.run_path(str(STORE_TESTS / "conftest.py"))["make_scan"]
    store = tmp_path_factory.mktemp("written") / "store"
    make(samples=16, block=4, layers=1, steps=1, flagged=(5,)).write(store)
    return store


@pytest.fixture(scope="module")
def sign():
    """Makes every checksum of a store right again."""
    return runpy.run_path(str(STORE_TESTS / "test_hostile.py"))["sign"]


def command(verb, store):
    name, *rest = verb
    return (name, store, *rest)


def read_lawfully(lawful, folder):
    for verb in READERS:
        lawful(folder, *command(verb, folder / "store"))
    checked = CliRunner().invoke(app, ["verify", str(folder / "store"), "--json"])
    assert checked.exit_code in (0, 2), checked.output
    assert checked.exception is None or isinstance(checked.exception, SystemExit)
    assert all(line.isprintable() for line in checked.stderr.splitlines())


def test_what_is_not_damaged_is_read(written, lawful):
    for verb in READERS:
        assert lawful(written.parent, *command(verb, written)).exit_code == 0


@examples(
    6,
    deep=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.data())
def test_bytes_of_any_file_of_a_store(written, damaged, lawful, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(written, folder / "store")
    names = sorted(path for path in written.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(names)).relative_to(written)
    whole = (written / name).read_bytes()
    (folder / "store" / name).write_bytes(data.draw(damaged(whole)))
    read_lawfully(lawful, folder)
    shutil.rmtree(folder)


@examples(
    6,
    deep=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.data())
def test_metadata_that_say_something_else_under_right_checksums(
    written, spoilt, sign, lawful, tmp_path_factory, data
):
    folder = tmp_path_factory.mktemp("lying")
    store = folder / "store"
    shutil.copytree(written, store)
    names = ["zarr.json", "model/zarr.json", "model/sketch/zarr.json", "model/role/zarr.json"]
    name = data.draw(st.sampled_from(names))
    content = json.loads((store / name).read_bytes())
    (store / name).write_text(json.dumps(data.draw(spoilt(content))), encoding="utf-8")
    sign(store)
    read_lawfully(lawful, folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["zarr.json", "model/ledger/fixed.json", "model/seed/c.0"])
def test_what_is_no_file_where_one_should_be(written, lawful, tmp_path, name):
    shutil.copytree(written, tmp_path / "store")
    path = tmp_path / "store" / name
    path.unlink()
    for make in (path.mkdir, lambda: path.symlink_to("/dev/zero")):
        make()
        for verb in READERS:
            words = [str(word) for word in command(verb, tmp_path / "store")]
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 2
            assert len(result.stderr.splitlines()) == 1
        path.rmdir() if path.is_dir() else path.unlink()
