"""The circuit that was written by hand is the one that is found."""

import numpy as np
import pytest
import torch
from planted_dit import OBJECT, PLACE, RELATIONAL
from scipy.stats import kstest

from attnsearch.axes import RELATIONS, ROLES, HeadAddress
from attnsearch.circuits import (
    Circuit,
    Screening,
    circuit_of,
    position_share,
    q_composition,
    read_directions,
    readings,
    relation_tags,
    screening_of,
)
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint
from attnsearch.sampling import SamplerConfig


@pytest.fixture(scope="module")
def screening(planted: Checkpoint) -> Screening:
    return screening_of(planted)


@pytest.fixture(scope="module")
def circuit(screening: Screening) -> Circuit:
    return circuit_of(screening)


def test_the_relational_head_leads_and_knows_every_direction(circuit: Circuit) -> None:
    first, second, *_ = circuit.writers
    assert circuit.heads == {first.address} == {RELATIONAL}
    assert set(first.cosines) == set(RELATIONS)
    assert all(cosine > 0.95 for cosine in first.cosines.values())
    assert first.q_value < 0.05 < second.q_value
    assert first.projection > 10 * abs(second.projection)


def test_its_tag_says_the_same_of_every_relation(circuit: Circuit) -> None:
    assert circuit.writers[0].tag_agreement > 0.99
    assert circuit.writers[0].tag_length == pytest.approx(1 + 5 / 3, rel=1e-3)


def test_the_object_head_reads_it_and_writes_both_parts_of_an_object(circuit: Circuit) -> None:
    first, second, *_ = circuit.readers
    assert first.address == OBJECT
    assert first.shape > 100 > abs(second.shape)
    assert first.colour > 100 > abs(second.colour)
    assert first.q_value < 1e-6 < second.q_value
    assert first.composition > 0.9 > second.composition
    assert first.untagged == pytest.approx(0, abs=1)
    assert min(first.shape_written, first.colour_written) > 1


def test_the_chain_is_the_strongest_of_all_pairs(circuit: Circuit) -> None:
    first, second, *_ = circuit.links
    assert (first.writer, first.reader) == (RELATIONAL, OBJECT)
    assert first.strength > 100 * abs(second.strength)
    assert all(link.writer.layer < link.reader.layer for link in circuit.links)


def test_another_head_can_be_asked_for(screening: Screening) -> None:
    asked = circuit_of(screening, frozenset({PLACE, RELATIONAL}))
    assert asked.heads == {PLACE, RELATIONAL}
    assert asked.readers[0].address == OBJECT
    last = circuit_of(screening, frozenset({OBJECT}))
    assert last.readers == []
    with pytest.raises(ConfigError, match="no head L7H0"):
        circuit_of(screening, frozenset({HeadAddress(7, 0)}))


def test_an_answer_is_the_difference_that_the_tag_makes_to_the_logits(
    screening: Screening,
) -> None:
    model = screening.model
    generator = torch.Generator().manual_seed(0)
    tag = torch.randn(model.position.shape[1], generator=generator)
    found = readings(read_directions(screening), tag, after=0)
    with torch.inference_mode():
        source = model.project_caption(screening.text.embedding)
        roles = screening.text.roles
        for layer in (1, 2):
            keys = model.layers[layer].keys(source.flatten(0, 1)).unflatten(1, roles.shape[:2])
            for kind, names in enumerate((("shape1", "shape2"), ("colour1", "colour2"))):
                logits = []
                for stream in (model.position, model.position + tag):
                    query = model.layers[layer].queries(stream)
                    both = torch.einsum("hqc,hptc->hqpt", query, keys) * model.layers[layer].scale
                    at = [roles[:, :, ROLES.index(name)] for name in names]
                    first, second = (torch.einsum("hqpt,pt->hqp", both, each) for each in at)
                    logits.append((first - second).mean((1, 2)))
                answer = (logits[1] - logits[0]).numpy()
                np.testing.assert_allclose(found[kind][layer], answer, rtol=1e-3, atol=1e-2)
    assert (found.shape[0] == 0).all()
    assert (found.p_value[0] == 1).all()


def test_random_tags_have_uniform_p_values(screening: Screening) -> None:
    generator = torch.Generator().manual_seed(0)
    width = screening.model.position.shape[1]
    directions = read_directions(screening)
    drawn = [
        readings(directions, torch.randn(width, generator=generator), after=1).p_value[2, 0]
        for _ in range(60)
    ]
    assert kstest(drawn, "uniform").pvalue > 0.01


def test_tags_do_not_depend_on_what_all_words_share(screening: Screening) -> None:
    """A constant that a head writes for every word is no tag."""
    before = relation_tags(screening)
    bias = screening.model.layers[RELATIONAL.layer].projections.value.bias
    kept = bias.clone()
    bias += 1
    shifted = relation_tags(screening)
    bias.copy_(kept)
    torch.testing.assert_close(shifted.mean, before.mean, rtol=1e-4, atol=1e-4)


def test_composition_lies_between_nothing_and_all(screening: Screening) -> None:
    scores = q_composition(screening.model, frozenset({PLACE}))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores[0] == 0).all()
    # What the place head writes is read by an MLP, not by the object head.
    assert scores[OBJECT.layer, OBJECT.head] < 1e-3


def test_positions_explain_the_head_that_reads_nothing_else(planted: Checkpoint) -> None:
    share = position_share(
        planted,
        images=8,
        sampler=SamplerConfig(steps=2, guidance=1),
        device=torch.device("cpu"),
    )
    assert share.shape == (2, 3, 4)
    assert (share <= 1).all()
    np.testing.assert_allclose(share[:, RELATIONAL.layer, RELATIONAL.head], 1, atol=1e-4)
    # Idle heads also read the noise of the image.
    assert share[:, 1, 0].max() < 0.9
