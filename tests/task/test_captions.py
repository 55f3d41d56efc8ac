from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.axes import RELATIONS, ROLES
from attnsearch.errors import CaptionError
from attnsearch.task.captions import (
    DIRECTION_WORDS,
    END,
    NAMINGS,
    PAD,
    VOCABULARY,
    compose,
    exam_captions,
    grid_captions,
    is_held_out,
    known_words,
    parse,
    phrases_of,
    possible_pairs,
    role_matrix,
    some_captions,
    token_ids,
    training_captions,
)
from attnsearch.task.spec import (
    COLOURS,
    OBJECT_PAIRS,
    PHRASES,
    PRESETS,
    SHAPES,
    PhraseSet,
    held_out_combinations,
)

SMALL, PAPER = PRESETS["small"], PRESETS["paper"]
EVERY = training_captions(PAPER)


def test_there_are_22_phrases_and_each_means_one_relation():
    phrases = [phrase for several in PHRASES.values() for phrase in several]
    assert set(PHRASES) == set(RELATIONS)
    assert len(phrases) == len(set(phrases)) == 22


def test_the_vocabulary_is_the_papers_26_tokens():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 26
    assert (PAD, END) == (0, 1)


def test_the_grids_have_96_and_264_prompts():
    for spec, count in ((SMALL, 96), (PAPER, 264)):
        grid = grid_captions(spec)
        assert len(grid) == len({caption.text for caption in grid}) == count


@pytest.mark.parametrize("spec", [SMALL, PAPER], ids=["small", "paper"])
@pytest.mark.parametrize("naming", NAMINGS)
def test_a_grid_has_every_text_of_training_that_names_its_colours_once(spec, naming):
    texts = [caption.text for caption in grid_captions(spec, naming)]
    trained = training_captions(replace(spec, colour_dropout=0.5))
    assert len(texts) == len(set(texts))
    assert set(texts) == {c.text for c in trained if c.colours_named == NAMINGS[naming]}
    # Without colours a pair of objects and the pair in the other colours are told alike.
    assert len(texts) == len(grid_captions(spec)) // (1 if any(NAMINGS[naming]) else 2)


def test_a_model_is_examined_on_the_captions_that_its_training_draws():
    assert exam_captions(SMALL) == grid_captions(SMALL)
    asked = exam_captions(PAPER)
    assert asked[:264] == grid_captions(PAPER)
    assert len(asked) == len({caption.text for caption in asked}) == 264 * 3 + 132
    assert {caption.text for caption in asked} == {caption.text for caption in EVERY}


def test_a_quick_exam_keeps_all_captions_with_colours_and_one_phrase_of_the_others():
    asked = exam_captions(PAPER, quick=True)
    named = [caption for caption in asked if all(caption.colours_named)]
    assert named == grid_captions(PAPER)
    others = [caption for caption in asked if not all(caption.colours_named)]
    short = replace(SMALL, colour_dropout=0.5)
    assert others == exam_captions(short)[96:] == exam_captions(short, quick=True)[96:]
    assert len(others) == 96 + 96 + 48


@pytest.mark.parametrize("caption", EVERY[::11], ids=lambda caption: caption.text)
def test_the_possible_pairs_of_a_caption_are_those_with_its_text(caption):
    assert possible_pairs(caption) == tuple(
        sorted({other.pair for other in EVERY if other.text == caption.text})
    )


@pytest.mark.parametrize("seed", [None, 0, 1, 7])
def test_what_is_held_out_has_a_text_that_no_training_scene_has(seed):
    spec = replace(SMALL, held_out_seed=seed, colour_dropout=0.5)
    kept_out = held_out_combinations(spec)
    every = training_captions(spec)
    seen = {c.text for c in every if (c.pair, RELATIONS.index(c.relation)) not in kept_out}
    for caption in every:
        assert is_held_out(caption, spec) == (caption.text not in seen)


def test_training_captions_leave_out_colours_only_under_colour_dropout():
    assert len(EVERY) == 12 * 22 * 4
    assert {caption.colours_named for caption in EVERY} == set(product((True, False), repeat=2))
    assert {caption.colours_named for caption in training_captions(SMALL)} == {(True, True)}


@pytest.mark.parametrize("caption", grid_captions(PAPER)[::7], ids=lambda caption: caption.text)
def test_a_caption_follows_the_grammar(caption):
    (colour1, shape1), (colour2, shape2) = OBJECT_PAIRS[caption.pair]
    phrases = [f"{colour1} {shape1} is {each} {colour2} {shape2}" for each in
               PHRASES[caption.relation]]  # fmt: skip
    assert caption.text in phrases


def test_every_caption_has_a_word_that_tells_the_direction():
    for caption in EVERY:
        assert caption.direction_words
        assert set(caption.direction_words) <= DIRECTION_WORDS


def test_parsing_undoes_composing_when_both_colours_are_named():
    for caption in grid_captions(PAPER):
        assert parse(caption.text) == caption


def test_parsing_undoes_composing_up_to_colours_left_out():
    for caption in EVERY:
        read = parse(caption.text)
        assert (read.words, read.roles, read.relation, read.colours_named) == (
            caption.words,
            caption.roles,
            caption.relation,
            caption.colours_named,
        )
        if any(caption.colours_named):
            assert read.pair == caption.pair


def test_letter_case_and_spacing_are_ignored():
    assert parse("  Red circle  IS above blue Square ") == parse("red circle is above blue square")


def read(text):
    try:
        return parse(text).text
    except CaptionError as error:
        return str(error)


@given(st.sampled_from(EVERY), st.integers(0, 9), st.sampled_from(sorted(known_words())))
def test_a_caption_with_a_word_exchanged_is_read_as_it_stands_or_refused(caption, place, word):
    words = list(caption.words)
    words[place % len(words)] = word
    text = " ".join(words)
    answer = read(text)
    assert answer == text or repr(text) in answer


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("navy circle is above blue square", "'navy'"),
        ("red circle is beside blue square", "'beside'"),
        ("red circle is above blue <pad>", "'<pad>'"),
        ("red above is circle blue square", "'above'"),
        ("red circle above blue square", "'is'"),
        ("red circle is to the blue square", "no known relation phrase"),
        ("red circle is above blue square left", "nothing may follow"),
        ("red circle is above red square", "must differ"),
        ("red circle is above blue circle", "must differ"),
        ("red circle is above", "the end"),
        ("", "the end"),
    ],
)
def test_what_is_wrong_with_a_caption_is_named(text, named):
    with pytest.raises(CaptionError) as caught:
        parse(text)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_roles_partition_the_tokens():
    roles = role_matrix(EVERY, PAPER.text_length)
    assert roles.shape == (len(EVERY), PAPER.text_length, len(ROLES))
    assert set(np.unique(roles)) == {0, 1}
    np.testing.assert_array_equal(roles.sum(axis=2), 1)


def test_every_token_has_the_role_of_what_it_stands_for():
    ids = token_ids(EVERY, PAPER.text_length)
    roles = np.array(ROLES)[role_matrix(EVERY, PAPER.text_length).argmax(axis=2)]
    for row, caption in enumerate(EVERY):
        tokens = [VOCABULARY[index] for index in ids[row]]
        by_role = {role: [] for role in ROLES}
        for token, role in zip(tokens, roles[row], strict=True):
            by_role[role].append(token)
        for number, (colour, shape) in enumerate(OBJECT_PAIRS[caption.pair], start=1):
            named = caption.colours_named[number - 1]
            assert by_role[f"colour{number}"] == ([colour] if named else [])
            assert by_role[f"shape{number}"] == [shape]
        assert set(by_role["relation"]) <= DIRECTION_WORDS
        assert not set(by_role["filler"]) & (DIRECTION_WORDS | set(COLOURS) | set(SHAPES))
        assert by_role["end"] == ["</s>"]
        assert set(by_role["pad"]) <= {"<pad>"}


def test_tokens_spell_the_caption():
    for row, caption in zip(token_ids(EVERY, PAPER.text_length), EVERY, strict=True):
        spelled = " ".join(VOCABULARY[index] for index in row[: list(row).index(END)])
        assert spelled.replace(" ##", "") == caption.text
        assert (row[list(row).index(END) + 1 :] == PAD).all()


@pytest.mark.parametrize("tokenise", [token_ids, role_matrix])
def test_a_caption_too_long_for_the_model_is_refused_with_its_length(tokenise):
    caption = compose(0, "upper_left", "diagonally up and left from")
    needed = len(caption.words) + 2
    tokenise([caption], needed)
    with pytest.raises(CaptionError, match=f"needs {needed} tokens, the model reads {needed - 1}"):
        tokenise([caption], needed - 1)


@pytest.mark.parametrize("spec", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("phrases", PhraseSet)
def test_every_caption_fits_the_text_length_of_its_preset(spec, phrases):
    captions = training_captions(replace(spec, phrases=phrases))
    assert token_ids(captions, spec.text_length).shape == (len(captions), spec.text_length)


def test_a_short_phrase_set_has_one_wording_per_relation():
    for relation in RELATIONS:
        assert phrases_of(SMALL, relation) == PHRASES[relation][:1]
        assert phrases_of(PAPER, relation) == PHRASES[relation]


@pytest.mark.parametrize("preset", ["small", "paper"])
@pytest.mark.parametrize("count", [1, 8, 33, 10_000])
def test_some_prompts_state_every_relation_as_often(preset: str, count: int) -> None:
    spec = PRESETS[preset]
    chosen = some_captions(spec, count)
    assert len(chosen) == min(count, len(grid_captions(spec)))
    assert len({caption.text for caption in chosen}) == len(chosen)
    stated = [sum(caption.relation == name for caption in chosen) for name in RELATIONS]
    assert preset == "paper" or max(stated) - min(stated) <= 1
