"""However maps are cut and put together, the same is said of them."""

from collections.abc import Callable
from functools import reduce

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnsearch.aggregation import Covariance, Extremes, Histogram, Moments, Statistic, algebra
from attnsearch.aggregation.algebra import Rows
from attnsearch.aggregation.groups import Grouping
from attnsearch.aggregation.reduction import Partial, Reduction, piece_state, put_together
from attnsearch.errors import ConfigError, MetricError
from attnsearch.scheduling import THREADED

STATISTICS = (Moments(), Extremes(), Histogram(low=-4, high=4, bins=32))
AXES = ("sample", "step", "head", "basis")
KEYS = ("relation", "seed")


def maps(samples: int, seed: int, *, missing: float = 0.0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 1, size=(samples, 3, 2, 4)).astype(np.float16).astype(np.float32) - 100
    values[rng.random(values.shape) < missing] = np.nan
    return xr.DataArray(
        values,
        dims=AXES,
        coords={
            "relation": ("sample", rng.choice(np.array(["left", "above", "below"]), samples)),
            "seed": ("sample", rng.integers(0, 2, samples)),
        },
    )


def expected(values: xr.DataArray, keep: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """By a loop over all combinations of what is kept, in float64."""
    grouping = Grouping.of(values, [name for name in keep if name not in AXES])
    cells = [name for name in AXES[1:] if name in keep]
    data = values.astype(np.float64).transpose("sample", *cells, ...).to_numpy()
    shape = (*grouping.shape, *(values.sizes[name] for name in cells))
    found = {name: np.full(shape, np.nan) for name in ("mean", "variance", "minimum", "maximum")}
    found["count"] = np.zeros(shape)
    for group in np.unique(grouping.codes):
        at = np.unravel_index(group, grouping.shape) if grouping.shape else ()
        for cell in np.ndindex(*shape[len(grouping.shape) :]):
            taken = data[(grouping.codes == group, *cell)]
            taken = taken[np.isfinite(taken)]
            found["count"][(*at, *cell)] = taken.size
            if taken.size:
                found["mean"][(*at, *cell)] = taken.mean()
                found["variance"][(*at, *cell)] = taken.var()
                found["minimum"][(*at, *cell)] = taken.min()
                found["maximum"][(*at, *cell)] = taken.max()
    order = [*grouping.keys, *cells]
    return {
        name: np.transpose(array, [order.index(axis) for axis in keep])
        for name, array in found.items()
    }


@given(
    samples=st.integers(1, 12),
    seed=st.integers(0, 99),
    keep=st.permutations((*KEYS, *AXES[1:])).flatmap(
        lambda names: st.integers(0, 5).map(lambda count: tuple(names[:count]))
    ),
    cuts=st.lists(st.integers(1, 11), max_size=4),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_any_cut_in_any_order_is_a_loop_over_groups(
    samples: int, seed: int, keep: tuple[str, ...], cuts: list[int], missing: float
) -> None:
    values = maps(samples, seed, missing=missing)
    reduction = Reduction(values=values, keep=keep, statistics=STATISTICS)
    grouping = reduction.grouping()
    ends = sorted({*(cut for cut in cuts if cut < samples), samples})
    parts = [
        piece_state(
            values.to_numpy()[begin:end], grouping.codes[begin:end], STATISTICS, reduction.dropped
        )
        for begin, end in zip([0, *ends], ends, strict=False)
    ]
    np.random.default_rng(seed).shuffle(parts)  # type: ignore[arg-type]
    whole = reduce(lambda one, other: put_together(STATISTICS, one, other), parts)
    found = reduction.result(grouping, whole)
    for name, array in expected(values, keep).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(found["histogram"].sum("bin"), found["count"])


@pytest.mark.parametrize("slab", [64, 1000, 2**20])
@pytest.mark.parametrize("keep", [("basis",), ("relation", "step", "basis"), ()])
def test_slabs_of_any_size_say_the_same(
    monkeypatch: pytest.MonkeyPatch, slab: int, keep: tuple[str, ...]
) -> None:
    monkeypatch.setattr(algebra, "SLAB_BYTES", slab)
    values = maps(9, 1, missing=0.1)
    reduction = Reduction(values=values, keep=keep, statistics=STATISTICS)
    grouping = reduction.grouping()
    found = reduction.result(grouping, reduction.partial(grouping.codes, THREADED, lambda _: None))
    for name, array in expected(values, keep).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-12, err_msg=name)


def test_small_variances_beside_large_means_are_kept() -> None:
    values = np.float64(1e8) + np.random.default_rng(0).normal(size=(1000, 1))
    parts = [
        piece_state(part, np.zeros(len(part), np.intp), (Moments(),), ())
        for part in np.array_split(values, 7)
    ]
    whole = reduce(lambda one, other: put_together((Moments(),), one, other), parts)
    (_, variance) = Moments().finalise(whole.states[0])["variance"]
    np.testing.assert_allclose(variance[0], values.var(axis=0), rtol=1e-6)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_state_of_nothing_changes_nothing(statistic: Statistic) -> None:
    values = maps(5, 0).to_numpy()
    state = statistic.chunk(values, Rows.of(np.zeros(5, np.intp)), ())
    empty = statistic.empty(state, 1)
    for pair in ((state, empty), (empty, state)):
        for name, array in statistic.combine(*pair).items():
            np.testing.assert_array_equal(array, state[name])


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("keep", [("basis",), ("relation", "head", "basis")])
def test_covariances_are_those_of_numpy(pieces: int, keep: tuple[str, ...]) -> None:
    values = maps(40, 3)
    values[0, 0, 0, 0] = np.nan  # this map does not count
    statistics = (Covariance(),)
    reduction = Reduction(
        values=values.chunk({"sample": 40 // pieces}), keep=keep, statistics=statistics
    )
    grouping = reduction.grouping()
    found = reduction.result(grouping, reduction.partial(grouping.codes, THREADED, lambda _: None))
    covariance = found["covariance"].transpose(*keep, "other").to_numpy()
    wanted = [name for name in keep if name != "basis"]
    for place in np.ndindex(covariance.shape[:-2]):
        part = values
        for name, index in zip(wanted, place, strict=True):
            part = (
                part.isel({name: index})
                if name in AXES
                else part.isel(sample=part[name].to_numpy() == found[name].to_numpy()[index])
            )
        rows = part.to_numpy().reshape(-1, 4).astype(np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        np.testing.assert_allclose(
            covariance[place], np.cov(rows.T, bias=True), rtol=1e-9, atol=1e-12
        )


def test_covariances_need_the_axis_they_are_along() -> None:
    with pytest.raises(ConfigError, match="kept"):
        Covariance().chunk(maps(3, 0).to_numpy(), Rows.of(np.zeros(3, np.intp)), (3,))


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=60), at=st.sampled_from([0.0, 0.5, 0.9])
)
def test_quantiles_are_right_to_a_bin(values: list[float], at: float) -> None:
    histogram = Histogram(low=0, high=1, bins=50)
    state = histogram.chunk(np.array(values)[:, None], Rows.of(np.zeros(len(values), np.intp)), ())
    found = histogram.quantile(state["bins"], at)
    wanted = [np.quantile(values, at, method=method) for method in ("lower", "higher")]
    assert wanted[0] - 0.02 - 1e-9 <= found[0, 0] <= wanted[1] + 0.02 + 1e-9


def test_nothing_has_no_quantile() -> None:
    histogram = Histogram(low=0, high=1)
    assert np.isnan(histogram.quantile(np.zeros((1, 256), np.int64), 0.5)).all()


@pytest.mark.parametrize("arguments", [(1, 0, 4), (0, np.inf, 4), (0, 1, 0), (0, 1, 2**20)])
def test_a_histogram_that_cannot_be_is_refused(arguments: tuple[float, float, int]) -> None:
    low, high, bins = arguments
    with pytest.raises(ConfigError):
        Histogram(low=low, high=high, bins=bins)


@pytest.mark.parametrize("keep", [("sample", "colour"), ("step", "step"), ("basis", "maps")])
def test_axes_that_are_none_are_named(keep: tuple[str, ...]) -> None:
    with pytest.raises(MetricError, match=keep[1]):
        Reduction(values=maps(3, 0), keep=keep, statistics=STATISTICS)


def test_samples_can_be_kept_apart() -> None:
    values = maps(5, 0)
    reduction = Reduction(values=values, keep=("sample",), statistics=(Moments(),))
    grouping = reduction.grouping()
    found = reduction.result(grouping, reduction.partial(grouping.codes, THREADED, lambda _: None))
    np.testing.assert_allclose(found["mean"], values.mean(AXES[1:]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["relation"], values["relation"])


@pytest.mark.parametrize("text", [lambda names: names.astype(object), lambda names: names])
def test_groups_appear_in_the_order_of_their_first_samples(
    text: Callable[[NDArray[np.str_]], NDArray[np.generic]],
) -> None:
    names = np.array(["b", "a", "b", "c"])
    values = xr.DataArray(np.arange(4.0), dims="sample", coords={"prompt": ("sample", text(names))})
    grouping = Grouping.of(values, ["prompt"])
    assert grouping.labels[0].tolist() == ["b", "a", "c"]
    assert grouping.codes.tolist() == [0, 1, 0, 2]


def test_a_partial_of_other_groups_is_put_beside() -> None:
    one, other = (
        Partial(
            groups=np.array([group]),
            states=(Moments().chunk(np.full((1, 1), group), Rows.of(np.zeros(1, np.intp)), ()),),
        )
        for group in (7, 2)
    )
    whole = put_together((Moments(),), one, other)
    assert whole.groups.tolist() == [2, 7]
    assert whole.states[0]["mean"].ravel().tolist() == [2, 7]
