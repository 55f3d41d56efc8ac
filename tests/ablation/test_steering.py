"""Objects go where they are steered to, in a model that is known to be steered that way."""

import pytest
import torch
from planted_dit import RELATIONAL

from attnsearch.ablation import Lender, Steering, Tag, steer_by_tag, steer_by_text
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig
from attnsearch.task.spec import OBJECT_PAIRS

HOW = {"seeds": 1, "sampler": SamplerConfig(steps=1, guidance=1), "device": torch.device("cpu")}
RELATIONAL_HEAD = frozenset({RELATIONAL})


def shares(steering: Steering) -> dict[str, float]:
    return {name: accuracy.value for name, accuracy in steering.after.items()}


@pytest.mark.parametrize("tag", Tag)
def test_the_tag_of_the_opposite_relation_moves_the_objects(planted: Checkpoint, tag: Tag) -> None:
    steered = steer_by_tag(planted, RELATIONAL_HEAD, tag=tag, **HOW)
    assert steered.before["asked"].value == 1
    assert steered.before["target"].value == 0
    found = shares(steered)
    assert found["target"] >= 0.9
    assert found["asked"] == 0
    assert found["shape"] == found["colour"] == 1


@pytest.mark.parametrize("lender", [Lender.SHAPES, Lender.ORDER])  # the tag of a prompt: colours
def test_a_tag_of_object_1_is_the_same_whoever_lends_it(
    planted: Checkpoint, lender: Lender
) -> None:
    found = shares(steer_by_tag(planted, RELATIONAL_HEAD, lender=lender, **HOW))
    assert found["target"] == found["binding"] == 1


@pytest.mark.parametrize("own", range(len(OBJECT_PAIRS)))
def test_lenders_differ_in_what_they_are_called_for(own: int) -> None:
    """Were a tag of colours, object 1's place would follow the colours of the lender."""
    mine = OBJECT_PAIRS[own]
    lent = {
        lender: [o for o in range(len(OBJECT_PAIRS)) if lender.lends(own, o)] for lender in Lender
    }
    assert all(lent.values())
    assert all(OBJECT_PAIRS[o][0][0] == mine[0][0] for o in lent[Lender.COLOURS])
    assert not any(OBJECT_PAIRS[o][0][1] == mine[0][1] for o in lent[Lender.COLOURS])
    (swapped,) = (OBJECT_PAIRS[o] for o in lent[Lender.SHAPES])
    assert [shape for _, shape in swapped] == [shape for _, shape in mine]
    assert [colour for colour, _ in swapped] == [colour for colour, _ in mine][::-1]
    assert [OBJECT_PAIRS[o] for o in lent[Lender.ORDER]] == [mine[::-1]]


def test_at_no_strength_there_is_no_tag(planted: Checkpoint) -> None:
    found = shares(steer_by_tag(planted, RELATIONAL_HEAD, tag=Tag.IMAGES, strength=0, **HOW))
    assert found["target"] == found["asked"] == 0.5


def test_prompts_that_ask_for_the_target_are_left_out(planted: Checkpoint) -> None:
    advanced: list[int] = []
    steered = steer_by_tag(planted, RELATIONAL_HEAD, to="left", advance=advanced.append, **HOW)
    assert steered.after["target"].count == 96 * 7 // 8
    assert sum(advanced) == 2 * 84
    # Only which end of the axis is whose can be told to this head: of the seven others one is
    # opposite, and two name the side together with another.
    assert steered.after["target"].value > steered.before["target"].value


def test_words_moved_to_the_opposite_relation_are_read_as_such(planted: Checkpoint) -> None:
    still = steer_by_text(planted, frozenset({"relation"}), strength=0, **HOW)
    assert still.before == still.after
    moved = steer_by_text(planted, frozenset({"relation"}), **HOW)
    assert moved.after["asked"].value == 0
    # Of a phrase of two words both are moved alike, to neither: half of the relations have two.
    assert moved.after["target"].value == 0.5
    assert shares(steer_by_text(planted, frozenset({"colour1"}), **HOW))["asked"] == 1


def test_what_is_not_there_is_named(planted: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="tag of a prompt is whole"):
        steer_by_tag(planted, RELATIONAL_HEAD, strength=2, **HOW)
    with pytest.raises(ConfigError, match="no relation 'beside'"):
        steer_by_tag(planted, RELATIONAL_HEAD, to="beside", **HOW)
    with pytest.raises(ConfigError, match="no role 'verb'"):
        steer_by_text(planted, frozenset({"verb"}), **HOW)
