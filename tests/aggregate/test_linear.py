"""Functionals read off stored sketches are those of the maps."""

import numpy as np
import pytest
import torch
import xarray as xr

from attnsearch.aggregate import basis_of, by_prompt, kept_energy, project, region_scores
from attnsearch.axes import ROLES, SKETCH_AXES, Branch
from attnsearch_kernels import dct2

GRID, SAMPLES, STEPS, LAYERS, HEADS = 4, 6, 2, 2, 3


@pytest.fixture
def scan() -> xr.Dataset:
    rng = np.random.default_rng(0)
    maps = rng.uniform(size=(SAMPLES, STEPS, 2, LAYERS, HEADS, len(ROLES), GRID**2))
    regions = rng.uniform(size=(SAMPLES, 2, GRID**2))
    regions[1] = np.nan
    basis = dct2(GRID, GRID, GRID).numpy()
    return xr.Dataset(
        {
            "sketch": (SKETCH_AXES, (maps @ basis).astype(np.float32)),
            "region_coefficients": (("sample", "region", "basis"), regions @ basis),
            "maps": ((*SKETCH_AXES[:-1], "token"), maps),
            "regions": (("sample", "region", "token"), regions),
        },
        coords={
            "branch": ["uncond", "cond"],
            "role": list(ROLES),
            "region": ["object1", "object2"],
            "prompt": ("sample", np.array(list("abcabc"), dtype=object)),
            "relation": ("sample", np.array(list("uvwuvw"), dtype=object)),
            "relation_words": ("sample", np.array(list("xyzxyz"), dtype=object)),
        },
        attrs={"grid": [GRID, GRID]},
    ).chunk({"sample": 4})


@pytest.mark.parametrize("branch", list(Branch))
def test_a_projection_is_the_functional_of_the_map(scan: xr.Dataset, branch: Branch) -> None:
    functional = np.random.default_rng(1).normal(size=(GRID**2, 3))
    coefficients = dct2(GRID, GRID, GRID).numpy().T @ functional
    roles = ["relation", "shape1"]
    found = project(scan, coefficients.astype(np.float32), roles, branch)
    maps = scan["maps"].sel(branch=str(branch), role=roles).sum("role")
    expected = xr.dot(maps, xr.DataArray(functional, dims=("token", "functional")), dim="token")
    xr.testing.assert_allclose(found, expected.compute().drop_vars("branch"), atol=1e-4)


def test_region_scores_are_the_templates_of_the_maps(scan: xr.Dataset) -> None:
    score, mass = region_scores(scan, "object2", ["relation"])
    region = scan["regions"].sel(region="object2")
    maps = scan["maps"].sel(branch="cond", role="relation")
    expected = (maps * region).sum("token", skipna=False).compute()
    np.testing.assert_allclose(score, expected, rtol=1e-4)
    np.testing.assert_allclose(mass, region.sum("token", skipna=False), rtol=1e-5)
    assert np.isnan(score[1]).all()


def test_the_basis_of_a_scan_is_the_one_it_was_sketched_in() -> None:
    order = 3
    ky, kx = np.divmod(np.arange(order**2), order)
    scan = xr.Dataset(
        coords={"ky": ("basis", ky), "kx": ("basis", kx)}, attrs={"grid": [GRID, GRID + 2]}
    )
    expected = dct2(GRID, GRID + 2, order, dtype=torch.float64).numpy().T
    np.testing.assert_allclose(basis_of(scan), expected, atol=1e-12)


def test_prompts_are_averaged_over_their_readable_samples(scan: xr.Dataset) -> None:
    score, _ = region_scores(scan, "object1", ["relation"])
    means = by_prompt(score)
    assert means["prompt"].to_numpy().tolist() == ["a", "b", "c"]
    assert means["relation"].to_numpy().tolist() == ["u", "v", "w"]
    np.testing.assert_allclose(means.sel(prompt="a"), (score[0] + score[3]) / 2, rtol=1e-6)
    np.testing.assert_allclose(means.sel(prompt="b"), score[4], rtol=1e-6)


def test_projections_do_not_depend_on_the_chunks(scan: xr.Dataset) -> None:
    coefficients = np.eye(GRID**2, 2, dtype=np.float32)
    whole = project(scan.chunk({"sample": -1}), coefficients, ["relation"])
    pieces = project(scan.chunk({"sample": 1}), coefficients, ["relation"])
    xr.testing.assert_allclose(whole, pieces, rtol=1e-6)


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
