"""The verbs in Python: what they take, what they give, and that the command line says the same."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pyarrow import parquet
from typer.testing import CliRunner

import attnsearch
from attnsearch.api.aggregate import aggregate
from attnsearch.cli import app
from attnsearch.errors import ConfigError, MetricError
from attnsearch.tables import Table

VERBS: dict[str, tuple[Callable[[Any], Table[Any]], list[str]]] = {
    "rank": (lambda store: attnsearch.rank(store, "entropy"), ["rank", "--metric", "entropy"]),
    "ask": (lambda store: attnsearch.ask(store, "mass(pad)"), ["ask", "mass(pad)"]),
    "aggregate": (lambda store: aggregate(store, "entropy"), ["aggregate", "entropy"]),
    "maps": (lambda store: attnsearch.maps(store, "two:L2H1"), ["maps", "two:L2H1"]),
    "cluster": (attnsearch.cluster, ["cluster"]),
    "similar": (
        lambda store: attnsearch.similar(store, to="one:L0H0"),
        ["similar", "--to", "one:L0H0"],
    ),
    "behaviours": (lambda store: attnsearch.behaviours(store, 3), ["cluster", "--behaviours", "3"]),
}  # fmt: skip

of_every_verb = pytest.mark.parametrize("verb", VERBS)


def printed(store: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("ATTNSEARCH_STORE", str(store))
    top = ["--top", "1000"] if words[0] in ("rank", "ask") else []
    result = CliRunner().invoke(app, [*words, *top, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@of_every_verb
def test_the_command_prints_what_the_function_returns(
    store: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, words = VERBS[verb]
    assert json.loads(json.dumps(function(store).records())) == printed(store, words, monkeypatch)


@of_every_verb
def test_a_store_may_be_named_or_opened(store: Path, verb: str) -> None:
    function, _ = VERBS[verb]
    expected = function(store).records()
    for given in (str(store), attnsearch.open_scans(store), attnsearch.open_store(store)):
        assert function(given).records() == expected


def test_one_opened_scan_has_the_name_that_its_store_gives_it(store: Path) -> None:
    alone = attnsearch.rank(attnsearch.open_scan(store, "two"), "entropy")
    assert alone == attnsearch.rank(store, "entropy", scan="two")
    assert {row.model for row in alone} == {"two"}
    unnamed = attnsearch.open_scan(store, "two").load().drop_encoding()
    assert {row.model for row in attnsearch.rank(unnamed, "entropy")} == {"scan"}


@of_every_verb
def test_a_result_becomes_a_frame_arrays_and_files(store: Path, verb: str, tmp_path: Path) -> None:
    function, _ = VERBS[verb]
    table = function(store)
    records = table.records()
    assert len(table.to_pandas()) == len(records)
    assert isinstance(table.to_xarray(), xr.Dataset)
    assert json.loads(table.save(tmp_path / "x.json").read_text()) == json.loads(
        json.dumps(records)
    )
    with table.save(tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(records)
    if records:
        assert set(rows[0]) == set(records[0])
        assert parquet.read_table(table.save(tmp_path / "x.parquet")).num_rows == len(records)
    page = table.save(tmp_path / "x.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == 1 + len(records)
    assert repr(table).startswith(table.title)


def test_a_ranking_as_arrays_has_every_head_at_its_place(store: Path) -> None:
    ranking = attnsearch.rank(store, "entropy")
    arrays = ranking.to_xarray()
    assert arrays.sizes == {"model": 2, "layer": 3, "head": 3, "step": 2}
    for row in ranking:
        at = arrays.sel(model=row.model, layer=row.layer, head=row.head)
        assert (float(at["score"]), float(at["ci_low"])) == (row.score, row.ci_low)
        assert tuple(at["profile"].values) == row.profile
    assert int(np.isfinite(arrays["score"]).sum()) == len(ranking) == 12
    grouped = attnsearch.ask(store, "mass(pad)", by="relation").to_xarray()
    assert grouped.sizes["group"] == 8


def test_aggregates_as_arrays_are_those_of_every_scan(store: Path) -> None:
    table = aggregate(store, "entropy", quantiles=(0.5,))
    arrays = table.to_xarray()
    for row in table:
        at = arrays.sel(model=row["model"], layer=row["layer"], head=row["head"])
        assert (float(at["mean"]), float(at["quantile_0.5"])) == (row["mean"], row["quantile_0.5"])
    assert [row["mean"] for row in table.largest_first()] == sorted(
        (row["mean"] for row in table), reverse=True
    )


def test_maps_are_the_means_of_what_was_stored(store: Path) -> None:
    found = attnsearch.maps(store, "one:L1H2", roles=("pad",))
    scan = attnsearch.open_scan(store, "one").load()
    sketch = scan["sketch"].astype(np.float64).sel(branch="cond", role="pad", layer=1, head=2)
    arrays = found.to_xarray()["attention"]
    for row in found:
        own = sketch.isel(sample=scan["relation"].values == row.relation).isel(step=row.step)
        assert row.samples == own.sizes["sample"]
        # The first coefficient is the sum over image tokens by the root of their number.
        tokens = np.prod(scan.attrs["grid"])
        mean = float(own.isel(basis=0).mean()) / np.sqrt(tokens)
        assert row.attention == pytest.approx(mean, rel=1e-5)
        assert float(arrays.sel(relation=row.relation, step=row.step).min()) >= 0
        assert -1 <= row.x <= 1
        assert -1 <= row.y <= 1


def test_what_has_a_picture_is_drawn_in_any_form(store: Path, tmp_path: Path) -> None:
    ranking = attnsearch.rank(store, "entropy")
    for suffix, begin in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")):
        assert ranking.save(tmp_path / f"x{suffix}").read_bytes().startswith(begin)
    assert attnsearch.maps(store, "one:L0H0").figure().axes
    with pytest.raises(ConfigError, match="no picture"):
        attnsearch.similar(store, to="one:L0H0").save(tmp_path / "y.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pdf", "x.png", "x.svg"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("x.txt", "must end in .csv"), ("no/x.csv", "no folder"), ("x", "must end in")],
)
def test_a_file_that_cannot_be_written_is_refused(
    store: Path, name: str, complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        attnsearch.rank(store, "entropy").save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_errors_name_parameters_and_not_flags(store: Path) -> None:
    for call, complaint in (
        (lambda: attnsearch.similar(store), "`to`"),
        (lambda: attnsearch.rank(store, "entropy", over="all"), "over is mean or peak"),
        (lambda: attnsearch.rank(store, "relatoinal"), "unknown metric 'relatoinal'"),
        (lambda: attnsearch.rank(None, "qk-relational", where="a == b"), "are for maps"),
        (lambda: attnsearch.maps(store, "L0H0"), "say of which model"),
        (lambda: attnsearch.ask(store, "relational", scan="three"), "no scan called 'three'"),
    ):
        with pytest.raises(attnsearch.AttnsearchError, match=complaint) as caught:
            call()
        assert "--" not in str(caught.value)


def test_a_slice_is_a_table_of_the_same_kind(store: Path) -> None:
    ranking = attnsearch.rank(store, "entropy")
    assert type(ranking[2:5]) is type(ranking)
    assert list(ranking[2:5]) == list(ranking)[2:5]
    assert ranking[2:5].records() == ranking.records()[2:5]
    assert ranking[0] == next(iter(ranking))


def test_the_weights_of_a_packaged_model_are_ranked_by_name() -> None:
    ranking = attnsearch.rank("rtep-femto-seed0", "qk-relational")
    assert [str(row.address) for row in ranking[:2]] == ["L0H3", "L0H2"]
    loaded = attnsearch.rank(attnsearch.load_checkpoint("rtep-femto-seed0"), "qk-relational")
    assert [row.projection for row in loaded] == [row.projection for row in ranking]
    with pytest.raises(MetricError, match="name some"):
        attnsearch.rank(None, "qk-relational")
