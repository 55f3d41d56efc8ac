"""Quantities read off stored sketches are those of the maps."""

import dask
import numpy as np
import pytest
import torch
import xarray as xr

from attnsearch.aggregation import (
    MEASURE,
    SHARE,
    TOTAL,
    Attention,
    Functional,
    Quantity,
    RegionScore,
    Stored,
    basis_of,
    kept_energy,
)
from attnsearch.axes import ROLES, SKETCH_AXES, Branch
from attnsearch.errors import MetricError
from attnsearch_kernels import dct2

GRID, SAMPLES, STEPS, LAYERS, HEADS = 4, 6, 2, 2, 3


@pytest.fixture(params=["dask", "numpy"])
def scan(request: pytest.FixtureRequest) -> xr.Dataset:
    rng = np.random.default_rng(0)
    maps = rng.uniform(size=(SAMPLES, STEPS, 2, LAYERS, HEADS, len(ROLES), GRID**2))
    regions = rng.uniform(size=(SAMPLES, 2, GRID**2))
    regions[1] = np.nan
    basis = dct2(GRID, GRID, GRID).numpy()
    dataset = xr.Dataset(
        {
            "sketch": (SKETCH_AXES, (maps @ basis).astype(np.float32)),
            "region_coefficients": (
                ("sample", "region", "basis"),
                (regions @ basis).astype(np.float32),
            ),
            "entropy": (SKETCH_AXES[:5], rng.uniform(size=maps.shape[:5])),
            "maps": ((*SKETCH_AXES[:-1], "token"), maps),
            "regions": (("sample", "region", "token"), regions),
        },
        coords={
            "branch": ["uncond", "cond"],
            "role": list(ROLES),
            "region": ["object1", "object2"],
            "basis": np.arange(GRID**2),
        },
        attrs={"grid": [GRID, GRID]},
    )
    return dataset.chunk({"sample": 4}) if request.param == "dask" else dataset


@pytest.mark.parametrize("branch", list(Branch))
@pytest.mark.parametrize("roles", [("relation",), ("shape2", "colour1"), ROLES])
def test_a_functional_is_that_of_the_map(
    scan: xr.Dataset, branch: Branch, roles: tuple[str, ...]
) -> None:
    functional = np.random.default_rng(1).normal(size=(GRID**2, 3))
    coefficients = (dct2(GRID, GRID, GRID).numpy().T @ functional).astype(np.float32)
    found = Functional(coefficients=coefficients, roles=roles, branch=branch).of(scan)
    maps = scan["maps"].sel(branch=str(branch), role=list(roles)).sum("role")
    expected = xr.dot(maps, xr.DataArray(functional, dims=("token", "functional")), dim="token")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert found.dims == ("sample", "step", "layer", "head", "functional")


@pytest.mark.parametrize("roles", [("relation",), ("shape2", "colour1")])
def test_attention_is_that_of_the_map_in_the_basis(
    scan: xr.Dataset, roles: tuple[str, ...]
) -> None:
    found = Attention(roles=roles).of(scan)
    maps = scan["maps"].sel(branch="cond", role=list(roles)).sum("role").to_numpy()
    np.testing.assert_allclose(found, maps @ dct2(GRID, GRID, GRID).numpy(), rtol=1e-4, atol=1e-5)


def test_region_scores_are_the_templates_of_the_maps(scan: xr.Dataset) -> None:
    found = RegionScore(region="object2", roles=("relation",)).of(scan).compute()
    region = scan["regions"].sel(region="object2")
    maps = scan["maps"].sel(branch="cond", role="relation")
    total = (maps * region).sum("token", skipna=False)
    mass = region.sum("token", skipna=False)
    np.testing.assert_allclose(found.sel({MEASURE: TOTAL}), total, rtol=1e-4)
    np.testing.assert_allclose(found.sel({MEASURE: SHARE}), total / mass, rtol=1e-4)
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[0]).all()


def test_a_stored_array_is_shown_of_one_branch(scan: xr.Dataset) -> None:
    found = Stored(name="entropy", branch=Branch.UNCOND).of(scan)
    np.testing.assert_array_equal(found, scan["entropy"].sel(branch="uncond"))


@pytest.mark.parametrize(
    ("quantity", "named"),
    [
        (Attention(roles=("verb",)), "'verb'"),
        (RegionScore(region="object3", roles=("relation",)), "'object3'"),
        (Stored(name="loudness"), "loudness"),
    ],
)
def test_what_a_scan_does_not_have_is_named(
    scan: xr.Dataset, quantity: Quantity, named: str
) -> None:
    with pytest.raises(MetricError, match=named):
        quantity.of(scan)


def test_a_scan_without_regions_has_no_region_scores(scan: xr.Dataset) -> None:
    bare = scan.drop_vars(["region", "region_coefficients"])
    with pytest.raises(MetricError, match="no regions"):
        RegionScore(region="object1", roles=("relation",)).of(bare)


def test_what_comes_in_pieces_is_the_same_as_in_one() -> None:
    rng = np.random.default_rng(2)
    sketch = rng.normal(size=(5, 1, 1, 1, 1, 1, 1)).astype(np.float16)
    scan = xr.Dataset(
        {"sketch": (SKETCH_AXES, sketch)}, coords={"branch": ["cond"], "role": ["relation"]}
    )
    double = Functional(coefficients=np.full((1, 1), 2, np.float32), roles=("relation",))
    whole, pieces = (double.of(scan.chunk({"sample": size})) for size in (-1, 1))
    np.testing.assert_array_equal(whole, 2 * sketch.reshape(whole.shape).astype(np.float32))
    np.testing.assert_array_equal(whole, pieces)


def test_nothing_is_computed_before_it_is_asked_for(scan: xr.Dataset) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    lazy = scan.chunk()
    with dask.config.set(scheduler=forbidden):
        Attention(roles=("relation",)).of(lazy)
        RegionScore(region="object1", roles=("relation",)).of(lazy)


def test_the_basis_of_a_scan_is_the_one_it_was_sketched_in() -> None:
    order = 3
    ky, kx = np.divmod(np.arange(order**2), order)
    scan = xr.Dataset(
        coords={"ky": ("basis", ky), "kx": ("basis", kx)}, attrs={"grid": [GRID, GRID + 2]}
    )
    expected = dct2(GRID, GRID + 2, order, dtype=torch.float64).numpy().T
    np.testing.assert_allclose(basis_of(scan), expected, atol=1e-12)


@pytest.mark.parametrize("order", range(1, GRID + 1))
def test_the_energy_a_basis_keeps_is_what_its_reconstruction_lacks(
    scan: xr.Dataset, order: int
) -> None:
    maps = scan["maps"].to_numpy().copy()
    maps[..., ROLES.index("pad"), :] = 0
    basis = dct2(GRID, GRID, order, dtype=torch.float64).numpy()
    sketch = maps @ basis
    lossy = xr.Dataset(
        {"sketch": (SKETCH_AXES, sketch), "energy": (SKETCH_AXES[:-1], (maps**2).sum(-1))},
        coords={"branch": ["uncond", "cond"], "role": list(ROLES)},
    ).chunk({"sample": 4})
    kept = kept_energy(lossy)
    attended = maps[:, :, 1, :, :, :-1]
    error = attended - (sketch @ basis.T)[:, :, 1, :, :, :-1]
    missed = (error**2).sum((0, 1, 2, 3, 5)) / (attended**2).sum((0, 1, 2, 3, 5))
    np.testing.assert_allclose(kept[:-1], 1 - missed, rtol=1e-5)
    assert np.isnan(kept.sel(role="pad"))
    assert (order == GRID) == bool(np.allclose(kept[:-1], 1))
