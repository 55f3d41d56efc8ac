"""The table of tiles, how a head is cut, and what Triton refuses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton")

from attnsearch_kernels.triton.configurations import (
    DTYPES,
    FALLBACKS,
    MAX_CHANNELS,
    choose,
    parse_table,
    serves,
    table,
)
from attnsearch_kernels.triton.launch import split_channels
from attnsearch_kernels.triton.operators import unsupported

ARCHITECTURES = sorted({row.architecture for row in table()} | set(FALLBACKS))
ROW = {
    "channels": 64,
    "keys": 32,
    "kernel": "fused",
    "block_queries": 64,
    "block_keys": 32,
    "warps": 4,
    "stages": 2,
    "source": "a test",
}


@given(
    st.sampled_from(ARCHITECTURES),
    st.sampled_from(list(DTYPES)),
    st.integers(1, MAX_CHANNELS),
    st.integers(1, 10_000),
)
def test_every_call_is_served_and_fits(
    architecture: str, dtype: torch.dtype, channels: int, keys: int
) -> None:
    row = choose(architecture, dtype, channels=channels, keys=keys)
    assert channels <= row.channels
    assert keys <= (row.block_keys if row.kernel == "fused" else row.keys)
    long = choose(architecture, dtype, channels=channels, keys=keys, kernel="long")
    assert long.kernel == "long"


def test_an_architecture_without_rows_is_known_to_have_none() -> None:
    assert not serves("sm_70")
    assert not serves("gfx1100")
    with pytest.raises(ValueError, match="no Triton configuration for sm_70"):
        choose("sm_70", torch.float16, channels=64, keys=20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warps": 3}, "warps = 3 is not a power of two"),
        ({"block_queries": 8}, "at least 16"),
        ({"kernel": "short"}, "unknown kernel or dtype"),
        ({"keys": 33}, "holds all keys in one tile"),
    ],
)
def test_an_unusable_row_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_table({"sm_90": {"half": [ROW | change]}})


def test_a_row_that_an_earlier_one_hides_is_refused() -> None:
    with pytest.raises(ValueError, match="never reached"):
        parse_table({"sm_90": {"half": [ROW, ROW | {"channels": 32, "keys": 16}]}})
    assert len(parse_table({"sm_90": {"half": [ROW, ROW | {"channels": 128}]}})) == 2


@given(st.integers(1, 128))
def test_a_head_is_cut_into_two_powers_of_two_that_waste_least(channels: int) -> None:
    main, rest = split_channels(channels)
    widths = [width for width in (main, rest) if width]
    assert all(width >= 16 and width & (width - 1) == 0 for width in widths)
    assert main + rest >= channels
    powers = (16, 32, 64, 128)
    smallest = min(a + b for a in powers for b in (0, *powers) if a + b >= channels)
    assert main + rest == smallest


def test_usual_heads_are_not_padded_to_the_next_power_of_two() -> None:
    assert split_channels(72) == (64, 16)
    assert split_channels(40) == (32, 16)
    assert split_channels(64) == (64, 0)


@pytest.mark.parametrize(
    ("dtype", "sizes", "message"),
    [
        (torch.float64, {}, "not torch.float64"),
        (torch.float16, {"channels": 129}, "at most 128 channels, not 129"),
        (torch.float16, {"columns": 65}, "at most 64 basis columns, not 65"),
        (torch.float16, {"roles": 17}, "at most 16 roles, not 17"),
    ],
)
def test_what_the_kernels_do_not_take_is_said(
    dtype: torch.dtype, sizes: dict[str, int], message: str
) -> None:
    reason = unsupported(dtype, **{"channels": 128, "columns": 64, "roles": 16} | sizes)
    assert reason is not None
    assert message in reason
    assert unsupported(torch.float16, channels=128, columns=64, roles=16) is None


def test_a_row_that_is_hidden_by_one_further_up_is_refused() -> None:
    between = ROW | {"channels": 128, "keys": 16}
    with pytest.raises(ValueError, match="never reached"):
        parse_table({"sm_90": {"half": [ROW, between, ROW | {"channels": 32}]}})
