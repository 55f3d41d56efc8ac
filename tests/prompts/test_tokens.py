"""Roles of sub-word tokens."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnsearch.errors import PromptError
from attnsearch.prompts import (
    Prompt,
    parse_template,
    role_matrix,
    roles_of,
    token_roles,
)

WORDS = st.lists(
    st.tuples(st.text("abé😀.", min_size=1, max_size=6), st.sampled_from([None, "x", "y", "z"])),
    min_size=1,
    max_size=8,
)


def prompt_of_words(words) -> Prompt:
    text, spans = "", {}
    for word, role in words:
        text += " " * bool(text)
        if role is not None:
            spans.setdefault(role, []).append((len(text), len(text) + len(word)))
        text += word
    return Prompt(text=text, spans={role: tuple(places) for role, places in spans.items()})


def roles_by_name(prompt: Prompt, offsets, special=None, attended=None) -> list[str]:
    roles = roles_of([prompt])
    special = special or [0] * len(offsets)
    attended = attended or [1] * len(offsets)
    return [roles[index] for index in token_roles(prompt, roles, offsets, special, attended)]


def character_roles(prompt: Prompt) -> list[str]:
    return [
        next((r for r, s in prompt.spans.items() if any(a <= at < b for a, b in s)), "filler")
        for at in range(len(prompt.text))
    ]


@settings(deadline=None)
@given(WORDS, st.data())
def test_every_character_of_a_span_is_in_tokens_of_its_role_however_words_are_split(words, data):
    prompt = prompt_of_words(words)
    offsets = []
    start = 0
    for word, _ in words:
        begin = start - data.draw(st.booleans()) if start else 0  # with the blank before it
        inner = data.draw(st.sets(st.integers(start + 1, start + len(word)), max_size=3))
        cuts = sorted({begin, *inner, start + len(word)})
        offsets += pairwise(cuts)
        start += len(word) + 1
    expected = character_roles(prompt)
    covered = set()
    for (a, b), role in zip(offsets, roles_by_name(prompt, offsets), strict=True):
        solid = [at for at in range(a, b) if prompt.text[at] != " "]
        assert {expected[at] for at in solid} == {role}
        covered.update(solid)
    assert covered == {at for at, character in enumerate(prompt.text) if character != " "}


@settings(deadline=None)
@given(WORDS, st.data())
def test_a_token_across_roles_takes_the_role_of_most_of_its_characters(words, data):
    prompt = prompt_of_words(words)
    length = len(prompt.text)
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, length))
    expected = character_roles(prompt)
    counts = Counter(expected[at] for at in range(start, end) if prompt.text[at] != " ")
    (role,) = roles_by_name(prompt, [(start, end)])
    if counts:
        assert counts[role] == max(counts.values())
    else:
        assert role == expected[end]


def test_the_first_of_two_roles_with_as_many_characters_wins():
    prompt = parse_template("{a:xx}{b:yy}z")
    assert roles_by_name(prompt, [(0, 4), (1, 4), (3, 5)]) == ["a", "b", "b"]


def test_blanks_do_not_count():
    prompt = parse_template("{a:xxx} {b:y} {b:y}")
    assert roles_by_name(prompt, [(0, 7), (2, 5)]) == ["a", "a"]


def test_blanks_belong_to_the_word_after_them_and_marked_blanks_to_their_mark():
    prompt = parse_template("on  {a:upper left} corner ")
    blanks = [(2, 3), (3, 4), (2, 4), (9, 10), (14, 15), (21, 22), (22, 22), (0, 0), (4, 4)]
    assert roles_by_name(prompt, blanks) == [
        "a", "a", "a", "a", "filler", "filler", "filler", "filler", "a",
    ]  # fmt: skip


def test_what_is_added_is_an_end_and_what_is_not_attended_a_pad():
    prompt = parse_template("a {shape:square}")
    offsets = [(0, 0), (0, 1), (2, 5), (5, 8), (900, 901), (0, 0), (0, 0)]
    roles = roles_by_name(prompt, offsets, [1, 0, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 0, 0])
    assert roles == ["end", "filler", "shape", "shape", "end", "pad", "pad"]


def test_gamma_puts_every_token_into_one_role_of_the_scan():
    prompt = parse_template("a {shape:square}")
    roles = ("colour", "shape", "filler", "end", "pad")
    gamma = role_matrix(prompt, roles, [(0, 1), (2, 8), (0, 0)], [0, 0, 1], [1, 1, 1])
    assert gamma.dtype == np.float32
    assert np.array_equal(gamma, np.eye(5)[[2, 1, 3]])


def test_offsets_of_another_text_are_refused():
    prompt = parse_template("a {shape:square}")
    with pytest.raises(ValueError, match=r"\(2, 9\) of the 8 characters"):
        roles_by_name(prompt, [(2, 9)])


@pytest.mark.parametrize(("roles", "missing"), [(("filler", "end", "pad"), "shape"),
                                                (("shape", "end", "pad"), "filler")])  # fmt: skip
def test_a_list_of_roles_that_lacks_one_is_refused_by_name(roles, missing):
    with pytest.raises(PromptError, match=f"role {missing} of 'a square' is not among"):
        token_roles(parse_template("a {shape:square}"), roles, [], [], [])
