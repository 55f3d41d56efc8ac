"""Other wordings ask for the same thing."""

import pytest

from attnsearch.task.captions import grid_captions, role_matrix, token_ids
from attnsearch.task.spec import PRESETS
from attnsearch.task.wordings import wordings


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_they_ask_for_the_same_in_other_words(preset: str) -> None:
    spec = PRESETS[preset]
    found = wordings(spec)
    grid = grid_captions(spec)
    assert found.pop("as trained") == grid
    assert ("other phrases" in found) == (preset == "small")
    trained = {caption.text for caption in grid}
    for captions in found.values():
        assert not trained & {caption.text for caption in captions}
    for name, captions in found.items():
        asked = [(caption.pair, caption.relation) for caption in captions]
        if name not in ("other phrases", "directly"):
            assert asked == [(caption.pair, caption.relation) for caption in grid]
        assert set(asked) == {(caption.pair, caption.relation) for caption in grid}


def test_every_wording_fits_the_model_and_keeps_its_roles() -> None:
    spec = PRESETS["small"]
    for captions in wordings(spec).values():
        token_ids(captions, spec.text_length)
        role_matrix(captions, spec.text_length)
        for caption in captions:
            told = dict(zip(caption.roles, caption.words, strict=True))
            assert {"colour1", "shape1", "colour2", "shape2", "relation"} <= told.keys()
            assert told["colour1"] != told["colour2"]


def test_one_prompt_in_every_wording() -> None:
    spec = PRESETS["small"]
    prompt = next(c for c in grid_captions(spec) if c.text == "red square is left of blue circle")
    at = grid_captions(spec).index(prompt)
    found = wordings(spec)
    assert {name: captions[at].text for name, captions in found.items() if len(captions) == 96} == {
        "as trained": "red square is left of blue circle",
        "the before object 1": "the red square is left of blue circle",
        "the before object 2": "red square is left of the blue circle",
        "without is": "red square left of blue circle",
        "directly": "red square is directly left of blue circle",
        "object 2 first": "left of blue circle is red square",
    }
    assert "red square is to the left of blue circle" in {
        caption.text for caption in found["other phrases"]
    }
