"""Scans are chosen by what their models are."""

import pytest
import xarray as xr

from attnsearch.clustering.selection import concentration, within
from attnsearch.errors import MetricError

SCANS = {
    "rtep-atto-seed0": xr.Dataset(attrs={"encoder": "rtep", "model": {"depth": 4, "width": 64}}),
    "rtep-pico-seed0": xr.Dataset(attrs={"encoder": "rtep", "model": {"depth": 5, "width": 128}}),
    "rte-atto-seed0": xr.Dataset(attrs={"encoder": "rte", "model": {"depth": 4, "width": 64}}),
    "pixart": xr.Dataset(),
}


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ([], [*SCANS]),
        (["encoder=rtep"], ["rtep-atto-seed0", "rtep-pico-seed0"]),
        (["encoder=rtep", "depth=4"], ["rtep-atto-seed0"]),
        (["name=*-atto-*"], ["rtep-atto-seed0", "rte-atto-seed0"]),
        (["name=pixart"], ["pixart"]),
    ],
)
def test_only_what_meets_every_condition_is_kept(conditions: list[str], kept: list[str]) -> None:
    assert [*within(SCANS, conditions)] == kept


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("encoder", "is no condition; write depth, encoder, name, width"),
        ("colour=red", "is no condition"),
        ("encoder=t5", "no scan has encoder=t5"),
    ],
)
def test_other_conditions_are_refused(condition: str, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        within(SCANS, [condition])


def test_concentration_counts_the_ways_to_choose() -> None:
    # Of 5 models 2 have an encoder; a family of 2 has just these in 1 of 10 ways.
    assert concentration(2, 2, 2, 5) == pytest.approx(0.1)
    assert concentration(2, 0, 2, 5) == pytest.approx(1)
