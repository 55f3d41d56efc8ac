"""Other wordings ask for the same thing."""

from dataclasses import replace

import pytest

from attnsearch.task.captions import (
    NAMINGS,
    exam_captions,
    grid_captions,
    role_matrix,
    token_ids,
)
from attnsearch.task.spec import PRESETS
from attnsearch.task.wordings import wordings


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_they_ask_for_the_same_in_other_words(preset: str) -> None:
    spec = PRESETS[preset]
    trained = {caption.text for caption in exam_captions(spec)}
    for name, captions in wordings(spec).items():
        naming = next((each for each in NAMINGS if name.endswith(each)), "all colours")
        grid = grid_captions(spec, naming)
        asked = [(caption.pair, caption.relation) for caption in captions]
        assert set(asked) == {(caption.pair, caption.relation) for caption in grid}
        assert {caption.colours_named for caption in captions} == {NAMINGS[naming]}
        if name in ("as trained", naming):
            assert captions == grid
            continue
        assert not trained & {caption.text for caption in captions}
        if not name.startswith(("other phrases", "directly")):
            assert asked == [(caption.pair, caption.relation) for caption in grid]


def test_captions_without_colours_have_other_wordings_where_they_are_trained() -> None:
    bare = ["no colour 1", "no colour 2", "no colours"]
    changes = ["the before object 1", "the before object 2", "without is", "directly"]
    changes += ["object 2 first"]
    assert list(wordings(PRESETS["small"])) == ["as trained", *changes, "other phrases", *bare]
    assert list(wordings(PRESETS["paper"])) == [
        *("as trained", *changes),
        *(
            name
            for naming in bare
            for name in (naming, *(f"{change}, {naming}" for change in changes))
        ),
    ]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_every_wording_fits_the_model_and_keeps_its_roles(dropout: float) -> None:
    spec = replace(PRESETS["small"], colour_dropout=dropout)
    for captions in wordings(spec).values():
        token_ids(captions, spec.text_length)
        role_matrix(captions, spec.text_length)
        for caption in captions:
            told = dict(zip(caption.roles, caption.words, strict=True))
            assert {"shape1", "shape2", "relation"} <= told.keys()
            assert tuple(f"colour{k}" in told for k in (1, 2)) == caption.colours_named
            assert told.get("colour1") != told.get("colour2") or not any(caption.colours_named)


def test_the_stands_before_a_shape_whose_colour_is_left_out() -> None:
    found = wordings(replace(PRESETS["small"], colour_dropout=0.5))
    at = [c.text for c in found["no colours"]].index("square is left of circle")
    assert found["the before object 1, no colours"][at].text == "the square is left of circle"
    assert found["the before object 2, no colours"][at].text == "square is left of the circle"
    assert "the square is left of blue circle" in {
        caption.text for caption in found["the before object 1, no colour 1"]
    }


def test_one_prompt_in_every_wording() -> None:
    spec = PRESETS["small"]
    prompt = next(c for c in grid_captions(spec) if c.text == "red square is left of blue circle")
    at = grid_captions(spec).index(prompt)
    found = wordings(spec)
    told = {name: captions[at].text for name, captions in found.items() if len(captions) == 96}
    assert told == {
        "as trained": "red square is left of blue circle",
        "the before object 1": "the red square is left of blue circle",
        "the before object 2": "red square is left of the blue circle",
        "without is": "red square left of blue circle",
        "directly": "red square is directly left of blue circle",
        "object 2 first": "left of blue circle is red square",
        "no colour 1": "square is left of blue circle",
        "no colour 2": "red square is left of circle",
    }
    assert "red square is to the left of blue circle" in {
        caption.text for caption in found["other phrases"]
    }
