"""Signatures say what a head does and nothing of how its model was sampled."""

from importlib import import_module

import numpy as np
import pytest
import xarray as xr

from attnsearch.clustering import find_families, signatures, standardised
from attnsearch.errors import MetricError
from attnsearch.metrics.planted import Kind, Plant, planted_scan

PLANTS = (
    Plant(kind=Kind.RELATIONAL, strength=2.0),
    Plant(kind=Kind.OBJECT, strength=2.0),
    Plant(kind=Kind.RELATIONAL, strength=-2.0),
    *(Plant(base=tuple(np.random.default_rng(k).normal(0, 1, 8))) for k in range(13)),
)


def test_the_same_head_in_another_place_of_another_model_is_recognised() -> None:
    scans = {"a": planted_scan(PLANTS, 0, noise=0.1), "b": planted_scan(PLANTS[::-1], 1, noise=0.1)}
    vectors = standardised(signatures(scans))
    cosine = vectors[:16] @ vectors[16:][::-1].T
    assert (cosine.argmax(axis=1) == np.arange(16)).all()
    relational = [0, 2]
    assert np.diag(cosine)[relational].min() > 0.9


def test_more_steps_of_the_same_maps_change_nothing() -> None:
    once = planted_scan(PLANTS, 0)
    twice = xr.concat(
        [once, once], "step", data_vars="minimal", coords="minimal", join="exact", compat="equals"
    ).assign_coords(noise_level=("step", [1.0, 0.4]))
    np.testing.assert_allclose(
        signatures({"a": once})["signature"], signatures({"a": twice})["signature"], atol=1e-9
    )


def test_columns_are_named_and_can_be_selected() -> None:
    found = signatures({"a": planted_scan(PLANTS, 0)})
    above = found.isel(column=(found["part"] == "relation") & (found["name"] == "above"))
    upwards = above.isel(column=above["axis"] == "y")["signature"].mean("column").to_numpy()
    assert upwards[0] * upwards[2] < 0
    assert abs(upwards[[0, 2]]).min() > 5 * abs(upwards[3:]).max()


def test_a_relational_head_is_found_across_scans() -> None:
    scans = {f"m{seed}": planted_scan(PLANTS, seed) for seed in range(3)}
    found = signatures(scans)
    families = find_families(standardised(found), list(found["model"].values), draws=99)
    heads = [{int(found["head"][member]) for member in each.members} for each in families]
    assert {0} in heads


def test_a_scan_without_noise_levels_is_refused() -> None:
    with pytest.raises(MetricError, match="noise levels"):
        signatures({"a": planted_scan(PLANTS, 0).drop_vars("noise_level")})


def test_controls_have_no_signatures() -> None:
    control = planted_scan(PLANTS, 1).assign_attrs(control=True)
    found = signatures({"a": planted_scan(PLANTS, 0), "a-control": control})
    assert set(found["model"].values) == {"a"}
    with pytest.raises(MetricError, match="other than controls"):
        signatures({"a-control": control})


def test_what_is_kept_is_taken_as_long_as_the_scan_is_the_same(tmp_path, monkeypatch) -> None:
    scans = {f"m{seed}": planted_scan(PLANTS, seed).chunk() for seed in range(2)}
    first = signatures(scans, saved=tmp_path / "kept")
    xr.testing.assert_identical(first, signatures(scans))

    def refuse(*_: object) -> None:
        raise AssertionError("worked out again")

    with monkeypatch.context() as patch:
        # The package's function of this name hides the module from a dotted path.
        patch.setattr(import_module("attnsearch.clustering.signatures"), "_of_scan", refuse)
        xr.testing.assert_identical(first, signatures(scans, saved=tmp_path / "kept"))
    changed = {"m0": planted_scan(PLANTS[::-1], 5).chunk(), "m1": scans["m1"]}
    again = signatures(changed, saved=tmp_path / "kept")
    xr.testing.assert_identical(again, signatures(changed))
    assert not again["signature"].equals(first["signature"])
    (tmp_path / "kept" / "m0.npz").write_bytes(b"PK\x03\x04 cut off")
    xr.testing.assert_identical(again, signatures(changed, saved=tmp_path / "kept"))


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path) -> None:
    (tmp_path / "kept").write_text("a file")
    scans = {"m": planted_scan(PLANTS, 0).chunk()}
    xr.testing.assert_identical(signatures(scans), signatures(scans, saved=tmp_path / "kept"))


def test_a_coarser_grid_changes_a_head_little() -> None:
    """The signature of the same maps with every other frequency, as of fewer image tokens."""
    fine = planted_scan(PLANTS, 0, noise=0.0)
    few = fine.isel(basis=((fine["kx"] < 4) & (fine["ky"] < 4)).to_numpy())
    coarse = few.assign(sketch=few["sketch"] / 2).assign_attrs({**fine.attrs, "grid": [4, 4]})
    vectors = standardised(signatures({"fine": fine, "coarse": coarse}))
    assert (np.sum(vectors[:16] * vectors[16:], axis=1) > 0.95).all()
