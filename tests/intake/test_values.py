"""Values of any kind, refused or quoted."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.errors import ConfigError
from attnsearch.intake import check_fields, one_line, quote


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    side: int = 1
    scale: float = 1.0
    name: str = ""
    colour: Colour = Colour.RED
    seed: int | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, side=10, scale=2)


@pytest.mark.parametrize(
    "values",
    [{}, {"side": 10}, {"scale": 2}, {"scale": -1.5}, {"seed": 2**64 - 1}, {"spread": 3}],
    ids=str,
)
def test_what_is_of_its_type_and_within_its_limit_passes(values):
    Shape(**values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"side": "3"}, "side must be a whole number, not '3'"),
        ({"side": 3.0}, "side must be a whole number, not 3.0"),
        ({"side": True}, "side must be a whole number, not True"),
        ({"side": None}, "side must be a whole number, not None"),
        ({"side": 11}, "side must be at most 10, not 11"),
        ({"side": 10**5000}, "side must fit 64 bits, not a number of thousands of digits"),
        ({"scale": True}, "scale must be a number, not True"),
        ({"scale": nan}, "scale must be a finite number, not nan"),
        ({"scale": inf}, "scale must be a finite number, not inf"),
        ({"scale": 2.5}, "scale must be at most 2, not 2.5"),
        ({"scale": 10**400}, "scale must fit 64 bits"),
        ({"name": 3}, "name must be text, not 3"),
        ({"name": "a" * 4097}, "name must be a text"),
        ({"name": "a\0b"}, "name must be a text"),
        ({"colour": "red"}, "colour must be"),
        ({"seed": -(2**63) - 1}, "seed must fit 64 bits"),
        ({"seed": "1"}, "seed must be int | None, not '1'"),
    ],
    ids=lambda value: quote(value)[:30],
)
def test_another_type_or_size_is_refused_by_the_name_of_the_field(values, reason):
    with pytest.raises(ConfigError) as caught:
        Shape(**values)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=60) | st.text(alphabet=st.characters(categories=["Cc", "Cs", "Cf", "Zl"])))
def test_a_message_is_one_line_of_printable_letters(text):
    line = one_line(text)
    assert line.isprintable()
    assert one_line(line) == line


@given(st.text(min_size=1, max_size=80), st.integers(40, 120))
def test_a_long_message_keeps_its_beginning_and_its_end(text, longest):
    line = one_line(f"begin{text * 200}end", longest)
    assert len(line) <= longest
    assert line.startswith("begin")
    assert line.endswith("end")


def test_a_message_that_fits_is_left_as_it_is():
    assert one_line("größer als 日本 is [red] é") == "größer als 日本 is [red] é"


DEEP: list[object] = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "value",
    ["a" * 10**6, 10**5000, [10**5000], DEEP, {"k": "v" * 9999}, b"\x1b" * 999, "\ud800\n"],
    ids=range(7),
)
def test_any_value_is_quoted_in_a_few_words(value):
    told = quote(value)
    assert len(told) <= 200
    assert told.isprintable()
