"""What a prompt may be, and what the prompts of one scan have in common."""

import pickle

import pytest

from attnsearch.axes import RELATIONS, ROLES
from attnsearch.errors import PromptError
from attnsearch.prompts import Prompt, coordinates_of, parse_template, roles_of
from attnsearch.prompts.prompt import MAX_ATTRIBUTES, MAX_ROLES, SCAN_NAMES
from attnsearch.store.schema import COORDINATES, SCORES, ScanLayout

TEXT = "a red square"
LONG = "a" * 64


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ({"shape": ((6, 13),)}, r"\[6, 13\] of role shape .* within the 12 characters of 'a red"),
        ({"shape": ((-1, 3),)}, r"\[-1, 3\] of role shape"),
        ({"shape": ((3, 3),)}, "non-empty range"),
        ({"shape": ((5, 3),)}, "non-empty range"),
        ({"shape": ((10**40, 10**41),)}, "non-empty range"),
        ({"shape": ((1, 2),)}, "nothing but blanks"),
        ({"shape": ()}, "role shape marks nothing"),
        ({"a": ((0, 5),), "b": ((4, 8),)}, r"\[0, 5\] of role a overlaps span \[4, 8\] of role b"),
        ({"a": ((2, 5), (2, 5))}, "a character has one role"),
        ({"Shape": ((0, 1),)}, "'Shape' is not the name of a role"),
        ({"": ((0, 1),)}, "'' is not the name of a role"),
        ({"a\nb": ((0, 1),)}, r"'a\\nb' is not the name"),
        ({LONG + "a": ((0, 1),)}, "is not the name"),
        ({"end": ((0, 1),)}, "role end is for tokens"),
        ({"pad": ((0, 1),)}, "role pad is for tokens"),
        ({"filler": ((0, 1),)}, "leave it unmarked"),
    ],
)
def test_roles_that_make_no_sense_are_refused_by_name(spans, reason):
    with pytest.raises(PromptError, match=reason) as caught:
        Prompt(text=TEXT, spans=spans)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Kind": "x"}, "'Kind' is not the name of an attribute"),
        ({"seed": "3"}, "the scan itself stores seed"),
        ({"layer": "3"}, "the scan itself stores layer"),
        ({"relation": "beside"}, "relation 'beside' is none of above, below"),
        ({"source": "\ud800"}, "half a surrogate"),
    ],
)
def test_attributes_that_a_scan_could_not_store_are_refused(attributes, reason):
    with pytest.raises(PromptError, match=reason):
        Prompt(text=TEXT, spans={}, attributes=attributes)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty"), (" \t", "empty"), ("a \udc00", "character 2")]
)
def test_a_text_must_say_something(text, reason):
    with pytest.raises(PromptError, match=reason):
        Prompt(text=text, spans={})


def test_a_prompt_may_touch_from_end_to_end_and_survives_pickling():
    prompt = Prompt(
        text=TEXT,
        spans={LONG: ((2, 5),), "rest": ((5, 12), (0, 2))},
        attributes={"relation": RELATIONS[0], "source": ""},
    )
    assert prompt.roles == ("rest", LONG)
    assert pickle.loads(pickle.dumps(prompt)) == prompt


def test_the_names_a_scan_stores_are_those_of_its_schema_but_for_what_prompts_say():
    layout = ScanLayout(
        samples=1, steps=1, branches=("cond",), layers=1, heads=1, roles=ROLES,
        regions=("object1",), scores=tuple(SCORES), order=1, block=1, canvas=(1, 1),
    )  # fmt: skip
    said = {"relation", "relation_words", "colour1", "shape1", "colour2", "shape2"}
    names = {spec.name for spec in layout.arrays()} | set(layout.index_coordinates())
    names |= {dimension for spec in layout.arrays() for dimension in spec.dimensions}
    names |= {spec.name for spec in COORDINATES} - said
    assert names == SCAN_NAMES


def test_the_roles_of_a_scan_come_in_the_order_of_the_texts_and_end_with_the_reserved():
    lines = ["a {shape1:square} is {relation:above} {shape2:it}", "{colour1:red} {shape1:square}"]
    assert roles_of([parse_template(line) for line in lines]) == (
        "shape1", "relation", "shape2", "colour1", "filler", "end", "pad",
    )  # fmt: skip


def test_a_scan_has_room_for_as_many_roles_as_the_kernels():
    operators = pytest.importorskip("attnsearch_kernels.triton.operators")
    assert operators.MAX_ROLES == MAX_ROLES


def test_more_roles_than_a_scan_has_room_for_are_refused_with_the_way_out():
    words = [f"w{index}" for index in range(MAX_ROLES - 3)]
    assert len(roles_of([parse_template(" ".join(words))])) == MAX_ROLES
    prompts = [parse_template(" ".join(words[:7])), parse_template(" ".join([*words[7:], "more"]))]
    with pytest.raises(PromptError, match=r"14 roles .* room for 13 .*\{shape1:square\}") as caught:
        roles_of(prompts)
    assert "\n" not in str(caught.value)


def test_attributes_become_columns_that_are_empty_where_a_prompt_says_nothing():
    lines = ["{shape1:square} {relation:left of} it", "a {colour1:red} {shape1:circle}", "nothing"]
    assert coordinates_of([parse_template(line) for line in lines]) == {
        "shape1": ["square", "circle", ""],
        "relation_words": ["left of", "", ""],
        "relation": ["left", "", ""],
        "colour1": ["", "red", ""],
    }


def test_a_file_cannot_invent_columns_without_end():
    prompts = [
        Prompt(text="x", spans={}, attributes={f"a{index}": "1"})
        for index in range(MAX_ATTRIBUTES + 1)
    ]
    assert len(coordinates_of(prompts[1:])) == MAX_ATTRIBUTES
    with pytest.raises(PromptError, match=f"have {MAX_ATTRIBUTES + 1} attributes"):
        coordinates_of(prompts)
