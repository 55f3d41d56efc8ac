"""Prompts as lines of JSON, also hostile ones."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnsearch.errors import PromptError
from attnsearch.prompts import Prompt, parse_template
from attnsearch.prompts.jsonl import parse_json
from attnsearch.prompts.template import spans_of_words


def line(**values) -> str:
    return json.dumps({"text": "a red square is above a blue circle"} | values)


def test_a_line_says_what_a_template_says():
    places = {"colour1": [[2, 5]], "shape1": ["square"], "relation": ["above"]}
    marked = "a {colour1:red} {shape1:square} is {relation:above} a blue circle"
    assert parse_json(line(roles=places)) == parse_template(marked)


def test_what_attributes_say_goes_before_what_the_words_say():
    given_values = {"relation": "below", "source": "me"}
    prompt = parse_json(line(roles={"relation": ["above"]}, attributes=given_values))
    assert prompt.attributes == {"relation": "below", "relation_words": "above", "source": "me"}


def test_without_roles_every_word_has_one_and_with_none_no_word_has():
    assert parse_json(line()).roles == (
        "a", "red", "square", "is", "above", "a_2", "blue", "circle",
    )  # fmt: skip
    assert parse_json(line(roles={})).spans == {}
    assert parse_json(line(attributes={"source": "me"})).attributes == {"source": "me"}


def test_places_count_code_points():
    prompt = parse_json(line(text="😀 é red", roles={"colour": [[4, 7]], "face": ["😀"]}))
    assert prompt.attributes == {"colour": "red", "face": "😀"}


def test_a_word_is_looked_up_whole():
    prompt = parse_json(line(text="redder than (red)", roles={"colour": ["red"]}))
    assert prompt.spans == {"colour": ((13, 16),)}
    phrase = parse_json(line(roles={"shape2": ["blue circle"]}))
    assert phrase.attributes == {"shape2": "blue circle"}


@settings(deadline=None)
@given(st.text(st.sampled_from("ab ,é"), min_size=1, max_size=30).filter(str.strip))
def test_places_are_read_as_they_were_written(text):
    prompt = Prompt(text=text, spans=spans_of_words(text))
    written = json.dumps({"text": text, "roles": prompt.spans})
    assert parse_json(written).spans == prompt.spans


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON: .* at column 2"),
        ("# a comment", "not JSON"),
        ("[1]", r"a line must be a JSON object, not \[1\]"),
        ('"text"', "must be a JSON object"),
        ("{}", 'key "text" is missing'),
        ('{"text": "a", "text": "b"}', "key 'text' is there twice"),
        ('{"text": "a", "roles": {"x": [[0, 1]], "x": []}}', "key 'x' is there twice"),
        ('{"text": "a", "role": {}}', "key 'role' is unknown; known are text, roles, attributes"),
        ('{"text": NaN}', "NaN is no number"),
        ('{"text": "a", "roles": {"x": [[0, Infinity]]}}', "Infinity is no number"),
        ('{"text": 5}', "text must be a string, not 5"),
        ('{"text": null}', "text must be a string, not None"),
        ('{"text": ""}', "text is empty"),
        ('{"text": "\\ud800"}', "surrogate"),
        ('{"text": "a", "roles": []}', r"roles must be a JSON object, not \[\]"),
        ('{"text": "a", "roles": null}', "roles must be a JSON object"),
        ('{"text": "a", "roles": {"x": "a"}}', "role 'x' must be a list of places, not 'a'"),
        ('{"text": "a", "roles": {"x": [0, 1]}}', r"a place of role 'x' is .*, not 0"),
        ('{"text": "a", "roles": {"x": [[0]]}}', r"a place of role 'x' is .*, not \[0\]"),
        ('{"text": "a", "roles": {"x": [[0, 1.0]]}}', r"not \[0, 1.0\]"),
        ('{"text": "a", "roles": {"x": [[0, 1e999]]}}', r"not \[0, inf\]"),
        ('{"text": "a", "roles": {"x": [[false, true]]}}', r"not \[False, True\]"),
        ('{"text": "a", "roles": {"x": [[0, "1"]]}}', r"not \[0, '1'\]"),
        ('{"text": "a", "roles": {"x": [[0, 2]]}}', "within the 1 characters"),
        ('{"text": "a", "roles": {"x": []}}', "role x marks nothing"),
        ('{"text": "a", "roles": {"x": [[0, %s]]}}' % ("9" * 4000), "within the 1 characters"),
        ('{"text": "a", "roles": {"x": [[0, %s]]}}' % ("9" * 5000), "thousands of digits"),
        ('{"text": "a b a", "roles": {"x": ["a"]}}', "'a' is 2 times in 'a b a'"),
        ('{"text": "a a a", "roles": {"x": ["a a"]}}', "'a a' is 2 times"),
        ('{"text": "abc", "roles": {"x": ["b"]}}', "'b' is not as a whole word in 'abc'"),
        ('{"text": "abc", "roles": {"x": [""]}}', "'' is not as a whole word"),
        ('{"text": "a b", "roles": {"x": [[1, 2]]}}', "nothing but blanks"),
        ('{"text": "a", "roles": {"END": [[0, 1]]}}', "'END' is not the name"),
        ('{"text": "a", "attributes": {"source": 3}}', "attribute 'source' must be a string"),
        ('{"text": "a", "attributes": [["source", "me"]]}', "attributes must be a JSON object"),
        ('{"text": "a", "attributes": {"relation": "on"}}', "relation 'on' is none of"),
        ("[" * 90_000, "nested too deeply"),
        ('{"text":' * 10_000, "nested too deeply"),
        ('{"text": %s}' % ("[" * 500 + "]" * 500), "text must be a string"),
        ('{"text": "a", "%s": 1}' % ("x" * 90_000), "is unknown"),
        ('{"text": "a", "roles": {"%s": [[0, 1]]}}' % ("x" * 90_000), "is not the name"),
        ('{"text": "a", "roles": {"x": ["%s"]}}' % ("b" * 90_000), "not as a whole"),
    ],
    ids=lambda value: value[:40],
)
def test_a_line_that_is_no_prompt_gives_one_clear_error(text, reason):
    with pytest.raises(PromptError, match=reason) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "roles", "attributes", "x", "a"]), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.one_of(st.fixed_dictionaries({"text": st.just("a x")}, optional={"roles": JSON}), JSON))
def test_any_json_is_a_prompt_or_a_refusal(values):
    with suppress(PromptError):
        assert parse_json(json.dumps(values)).text == values["text"]
