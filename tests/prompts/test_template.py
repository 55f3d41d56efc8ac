"""Prompts as lines of plain text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnsearch.errors import PromptError
from attnsearch.prompts import Prompt, parse_template

ROLE = st.from_regex(r"w[a-z0-9_]{0,5}", fullmatch=True)
PLAIN = st.text(st.sampled_from("ab {}:#é😀"), max_size=8)
MARKED = st.text(st.sampled_from("ab :#é😀"), min_size=1, max_size=8).filter(str.strip)


def escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@settings(deadline=None)
@given(st.lists(st.tuples(PLAIN, ROLE, MARKED), min_size=1, max_size=6), PLAIN)
def test_reading_a_template_undoes_writing_it(parts, tail):
    line, text, spans = "", "", {}
    for plain, role, words in parts:
        line += f"{escape(plain)}{{{role}:{words}}}"
        text += plain
        spans.setdefault(role, []).append((len(text), len(text) + len(words)))
        text += words
    prompt = parse_template(line + escape(tail))
    assert prompt.text == text + tail
    assert prompt.spans == {role: tuple(places) for role, places in spans.items()}


def test_a_role_says_its_words_and_a_relation_its_name():
    prompt = parse_template(
        "{colour1:red} {shape1:square} is {relation:to  the Left of} a {{{colour1:white}}} "
        "{shape2:ice cream}"
    )
    assert prompt.text == "red square is to  the Left of a {white} ice cream"
    assert prompt.spans["colour1"] == ((0, 3), (33, 38))
    assert prompt.attributes == {
        "colour1": "red white",
        "shape1": "square",
        "relation": "left",
        "relation_words": "to the left of",
        "shape2": "ice cream",
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a {shape1:square", "brace at column 3 "),
        ("a shape1:square}", "brace at column 16 "),
        ("a {square}", "brace at column 3 "),
        ("{{a}", "brace at column 4 "),
        ("{a:{b:c}}", "brace at column 1 "),
        ("{Shape:square}", "'Shape' is not the name"),
        ("{ a:square}", "' a' is not the name"),
        ("{:square}", "'' is not the name"),
        ("a {shape1:}", "non-empty"),
        ("a {shape1: } square", "blanks"),
        ("{end:square}", "role end"),
        ("{seed:square}", "stores seed"),
    ],
)
def test_a_malformed_mark_is_refused_by_its_place_or_name(line, reason):
    with pytest.raises(PromptError, match=reason) as caught:
        parse_template(line)
    assert "\n" not in str(caught.value)


def test_a_line_without_marks_has_one_role_per_word_and_no_attributes():
    prompt = parse_template("The cat, the {{big}} dog -- and THE café!")
    assert {role: prompt.text[slice(*spans[0])] for role, spans in prompt.spans.items()} == {
        "the": "The", "cat": "cat", "the_2": "the", "big": "big", "dog": "dog", "and": "and",
        "the_3": "THE", "cafe": "café",
    }  # fmt: skip
    assert prompt.attributes == {}


def test_names_that_cannot_be_roles_are_made_ones():
    words = "end 3d filler 红色 蓝色 word_2 ... pad"
    assert parse_template(words).roles == (
        "end_2", "word3d", "filler_2", "word", "word_2", "word2", "pad_2",
    )  # fmt: skip


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="{}", exclude_categories=["Cs"]), max_size=40))
def test_any_line_of_words_is_a_prompt_whose_roles_are_whole_words(line):
    if not line.strip():
        return
    prompt = parse_template(line)
    assert isinstance(prompt, Prompt)
    covered = [prompt.text[start:end] for spans in prompt.spans.values() for start, end in spans]
    assert all(not any(character.isspace() for character in word) for word in covered)
    letters = [character for character in line if character.isalnum()]
    assert [c for word in covered for c in word if c.isalnum()] == letters
