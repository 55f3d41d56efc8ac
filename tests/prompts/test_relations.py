"""Which relation marked words name."""

import pytest

from attnsearch.axes import RELATIONS
from attnsearch.prompts import relation_named
from attnsearch.task.spec import PHRASES


def test_every_phrase_of_the_task_and_every_name_means_its_relation():
    for relation in RELATIONS:
        for phrase in (*PHRASES[relation], relation, relation.replace("_", "-").upper()):
            assert relation_named(phrase) == relation


@pytest.mark.parametrize(
    ("words", "relation"),
    [
        ("on top of", "above"),
        ("under", "below"),
        ("beneath", "below"),
        ("is Underneath", "below"),
        ("on the left of", "left"),
        ("above and left", "upper_left"),
    ],
)
def test_other_words_for_a_relation_are_known(words, relation):
    assert relation_named(words) == relation


@pytest.mark.parametrize("words", ["beside", "right above", "not above", "left or right", "on", ""])
def test_what_names_no_relation_for_certain_names_none(words):
    assert relation_named(words) is None
