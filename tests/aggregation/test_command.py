"""`attnsearch aggregate` as a user types it, and its table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import LocalCluster
from pyarrow import parquet
from typer.testing import CliRunner, Result

from attnsearch.aggregation import Aggregator, Stored
from attnsearch.api.aggregate import Aggregates
from attnsearch.api.scans import OpenedScans
from attnsearch.cli import app
from attnsearch.store import open_scan


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Any]) -> Path:
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    make(samples=20, flagged=(4,)).write(path, "one")
    make(samples=5).write(path, "two")
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["aggregate", *map(str, words)])


def rows(*words: object) -> list[dict[str, Any]]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_row_is_that_of_the_maps(store: Path) -> None:
    entropy = open_scan(store, "one")["entropy"].sel(branch="uncond").load()
    found = rows(store, "entropy", "--branch", "uncond", "--keep", "head,relation", "--scan", "one")
    assert len(found) == 3 * 8
    for row in found:
        part = entropy.isel(head=row["head"], sample=entropy["relation"].values == row["relation"])
        values = part.to_numpy().astype(np.float64)
        assert row["count"] == values.size
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert row["variance"] == pytest.approx(values.var(), rel=1e-9)
        assert (row["minimum"], row["maximum"]) == (values.min(), values.max())


@pytest.mark.parametrize(
    ("what", "axes"),
    [
        ("entropy", {"layer", "head"}),
        ("energy", {"layer", "head", "role"}),
        ("relation", {"layer", "head", "basis"}),
        ("colour1+shape1", {"layer", "head", "basis"}),
        ("object1 -> relation", {"layer", "head", "measure"}),
        ("score_binding", set()),
    ],
)
def test_what_is_kept_if_nothing_is_said(store: Path, what: str, axes: set[str]) -> None:
    found = rows(store, what)
    told = {"model", "count", "mean", "variance", "minimum", "maximum", "blocks", "blocks_done"}
    assert {*found[0]} == axes | told
    assert {row["model"] for row in found} == {"one", "two"}


def test_quantiles_lie_where_values_do(store: Path) -> None:
    entropy = open_scan(store, "one")["entropy"].sel(branch="cond").load()
    for row in rows(store, "entropy", "--quantiles", "0.25,0.5", "--scan", "one"):
        values = entropy.isel(layer=row["layer"], head=row["head"])
        bin_width = np.log(10) / 256
        for share in (0.25, 0.5):
            expected = np.quantile(values, share)
            assert row[f"quantile_{share:g}"] == pytest.approx(expected, abs=2 * bin_width)


def test_a_table_says_how_much_it_shows(store: Path) -> None:
    result = run(store, "entropy", "--top", 2)
    assert len(result.stdout.splitlines()) == 4
    assert "2 largest means of 12 rows" in result.stderr
    assert "one: 1 of 20 samples were not finite" in result.stderr


def test_parquet_holds_what_json_does(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    keep = ("--keep", "relation,layer,head")
    assert run(store, "entropy", *keep, "--output", path).exit_code == 0
    table = parquet.read_table(path)
    of_answers = ("blocks", "blocks_done")  # how whole a scan is, which a table of numbers is not
    assert table.to_pylist() == [
        {name: value for name, value in row.items() if name not in of_answers}
        for row in rows(store, "entropy", *keep)
    ]
    assert table.schema.metadata[b"title"] == b"entropy in s.zarr, cond"
    assert [*tmp_path.iterdir()] == [path]


def test_a_dry_run_reads_and_writes_nothing(store: Path, tmp_path: Path) -> None:
    result = run(store, "relation", "--dry-run", "--output", tmp_path / "x.parquet")
    plans = json.loads(result.stdout)
    assert {*plans} == {"one", "two"}
    assert plans["one"]["bytes"] > plans["two"]["bytes"] > 0
    assert plans["one"]["memory"] > 0
    assert not [*tmp_path.iterdir()]


def test_a_cluster_says_the_same(store: Path) -> None:
    expected = rows(store, "entropy")
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        assert rows(store, "entropy", "--dask", cluster.scheduler_address) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("loudness",), "unknown role 'loudness'"),
        (("object9 -> relation",), "unknown region 'object9'"),
        (("object1 ->",), "not a template"),
        (("entropy", "--keep", "planet"), "unknown axis 'planet'"),
        (("entropy", "--keep", "head,head"), "kept once"),
        (("relation", "--quantiles", "0.5"), "have bounds"),
        (("entropy", "--quantiles", "half"), "from 0 to 1"),
        (("entropy", "--output", "x.png"), "must end in .csv, .json, .parquet or .html"),
        (("entropy", "--output", "no/folder/x.parquet"), "cannot write"),
        (("entropy", "--dask", "clouds"), "no scheduler"),
        (("entropy", "--dask", "tcp://127.0.0.1:1"), "no Dask scheduler answers"),
    ],
)
def test_what_cannot_be_is_one_line(
    store: Path,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("attnsearch.scheduling._CONNECT_SECONDS", 1)
    monkeypatch.chdir(tmp_path)
    result = run(store, *words)
    assert result.exit_code == 2
    assert said in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output
    assert not [*tmp_path.iterdir()]


def test_what_does_not_occur_has_no_row(store: Path) -> None:
    scan = open_scan(store, "two").load()
    found = Aggregator()(scan, Stored(name="entropy"), ("relation", "seed"))
    assert found["count"].size == 25
    rows = Aggregates.of({"two": found}, "entropy", OpenedScans({"two": scan}))
    assert len(rows) == 5
    assert all(row["count"] > 0 for row in rows)


def test_axes_without_labels_are_numbered() -> None:
    aggregate = xr.Dataset({"count": ("x", [1, 0, 2]), "mean": ("x", [0.5, np.nan, 1.5])})
    rows = Aggregates.of({"m": aggregate}, "x", OpenedScans())
    assert [(row["x"], row["mean"]) for row in rows] == [(0, 0.5), (2, 1.5)]
