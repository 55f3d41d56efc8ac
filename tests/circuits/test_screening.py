"""What screening by weights finds, and what it leaves alone."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from attnsearch.axes import RELATION_DIRECTIONS, HeadAddress, Site
from attnsearch.circuits import (
    CircuitModel,
    align,
    qk_relational,
    relation_maps,
    screen,
    screening_of,
)
from attnsearch.encoders import EncoderKind
from attnsearch.metrics.meaning import token_positions
from attnsearch.metrics.ranking import benjamini_hochberg
from attnsearch.models import Checkpoint, DiT, load_checkpoint
from attnsearch.zoo import beside, demonstration, packaged

Build = Callable[..., Any]

RELATIONAL = (2, 1)
FIXED_BIAS = (2, 2)
WORD_DIRECTIONS = {
    "above": (0, -1), "upper": (0, -1), "below": (0, 1), "lower": (0, 1),
    "left": (-1, 0), "right": (1, 0),
}  # fmt: skip


def _rows(model: DiT, head: int) -> slice:
    channels = model.config.width // model.config.heads
    return slice(head * channels, (head + 1) * channels)


def _set_head(model: DiT, at: tuple[int, int], query: torch.Tensor, key: torch.Tensor) -> None:
    layer, head = at
    attention = model.attention_modules(Site.CROSS)[layer]
    rows = _rows(model, head)
    for linear, weight in ((attention.query, query), (attention.key, key)):
        linear.weight[rows] = 0
        linear.weight[rows.start : rows.start + len(weight)] = weight


def _plant(model: DiT, text: Any, captions: Any) -> None:
    """A head whose QK map is a ramp along the relation, and one with the same ramp for all."""

    def fit(inputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return torch.linalg.lstsq(inputs, wanted, driver="gelsd").solution.T

    source = model.caption_mlp(text.embedding)[text.mask]
    flat = [word for caption in captions for word in (*caption.words, "</s>")]
    directions = torch.tensor([WORD_DIRECTIONS.get(word, (0, 0)) for word in flat]).float()
    grid = (model.config.grid, model.config.grid)
    ramps = fit(model.position, torch.from_numpy(token_positions(grid)).float())
    _set_head(model, RELATIONAL, ramps, 20 * fit(source, directions))
    is_direction = directions.abs().sum(dim=1, keepdim=True).repeat(1, 2)
    _set_head(model, FIXED_BIAS, ramps, 20 * fit(source, is_direction))


def test_ramps_have_cosine_one_mirrored_ramps_minus_one_and_flat_maps_zero() -> None:
    directions = np.array(list(RELATION_DIRECTIONS.values()))
    ramps = directions @ token_positions((4, 6)).T
    maps = np.stack([3 * ramps + 7, -ramps, np.zeros_like(ramps)])[None]
    found = align(maps, (4, 6))
    length = np.linalg.norm(ramps, axis=1).mean()
    np.testing.assert_allclose(found.cosine, [[1, -1, 0]])
    np.testing.assert_allclose(found.projection, [[3 * length, -length, 0]])
    np.testing.assert_allclose(found.energy, [[3 * length, length, 0]])


def test_a_planted_relational_head_comes_first_and_a_planted_bias_does_not(
    untrained: Build,
) -> None:
    model, text, captions = untrained(0)
    _plant(model, text, captions)
    scores, p_value = qk_relational(CircuitModel(model), text, captions)
    strongest = np.unravel_index(np.abs(scores.projection).argmax(), p_value.shape)
    assert strongest == RELATIONAL
    assert scores.cosine[RELATIONAL] > 0.95
    assert p_value[RELATIONAL] < 0.01
    assert abs(scores.cosine[FIXED_BIAS]) < 0.5
    assert p_value[FIXED_BIAS] > 0.05


def test_the_projection_does_not_ask_whether_a_common_bias_was_removed(untrained: Build) -> None:
    model, text, captions = untrained(0)
    _plant(model, text, captions)
    circuit = CircuitModel(model)
    ours, _ = qk_relational(circuit, text, captions)
    paper = align(relation_maps(circuit, text, captions).maps, circuit.grid)
    np.testing.assert_allclose(ours.projection, paper.projection, atol=1e-9)
    assert (ours.energy < paper.energy).all()


@pytest.mark.parametrize("task", ["small", "paper"])
@pytest.mark.parametrize("kind", [EncoderKind.RTE, EncoderKind.RTEP])
def test_networks_with_random_weights_have_no_significant_head(
    untrained: Build, task: str, kind: EncoderKind
) -> None:
    p_values = []
    for seed in range(8):
        model, text, captions = untrained(seed, task, kind)
        _, p_value = qk_relational(CircuitModel(model), text, captions)
        assert benjamini_hochberg(p_value.ravel()).min() > 0.05
        p_values.append(p_value.ravel())
    # One-sided: the p-values may be larger than uniform ones, never smaller.
    assert kstest(np.concatenate(p_values), "uniform", alternative="greater").pvalue > 0.01


@examples(5, deep=50)
@given(order=st.permutations(range(4)), layer=st.integers(0, 3))
def test_permuting_heads_permutes_scores(untrained: Build, order: list[int], layer: int) -> None:
    model, text, captions = untrained(3)
    before, p_before = qk_relational(CircuitModel(model), text, captions)
    attention = model.attention_modules(Site.CROSS)[layer]
    for linear in (attention.query, attention.key):
        for parameter in (linear.weight, linear.bias):
            parameter.copy_(torch.cat([parameter[_rows(model, head)] for head in order]))
    after, p_after = qk_relational(CircuitModel(model), text, captions)
    for old, new in zip((*before, p_before), (*after, p_after), strict=True):
        expected = old.copy()
        expected[layer] = old[layer, order]
        np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-5)


@examples(5, deep=50)
@given(factor=st.floats(0.1, 10), head=st.integers(0, 3))
def test_longer_queries_scale_projection_and_energy_but_not_cosine_nor_p(
    untrained: Build, factor: float, head: int
) -> None:
    model, text, captions = untrained(4)
    before, p_before = qk_relational(CircuitModel(model), text, captions)
    model.attention_modules(Site.CROSS)[1].query.weight[_rows(model, head)] *= factor
    after, p_after = qk_relational(CircuitModel(model), text, captions)
    scaled = np.ones_like(p_before)
    scaled[1, head] = factor
    np.testing.assert_allclose(after.cosine, before.cosine, atol=1e-4)
    np.testing.assert_allclose(after.projection, before.projection * scaled, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after.energy, before.energy * scaled, rtol=1e-3)
    np.testing.assert_allclose(p_after, p_before, atol=1e-3)


def test_the_same_weights_give_the_same_numbers(tiny_checkpoint: Checkpoint) -> None:
    models = {name: screening_of(tiny_checkpoint) for name in "ab"}
    first = screen(models)
    assert first == screen(models)
    assert {row.p_value for row in first if row.model == "a"} == {
        row.p_value for row in first if row.model == "b"
    }


@dataclass(frozen=True, slots=True)
class _Sampled:
    address: HeadAddress
    score: float
    significant: bool


def _sampled(name: str) -> list[_Sampled]:
    path = next(path for path in packaged() if path.stem == name)
    heads = json.loads(beside(path, "ranking").read_text())["heads"]
    return [
        _Sampled(HeadAddress(row["layer"], row["head"]), row["score"], row["q_value"] < 0.05)
        for row in heads
    ]


def _screened(name: str) -> Any:
    path = next(path for path in packaged() if path.stem == name)
    return screen({name: screening_of(load_checkpoint(path))})


@pytest.mark.parametrize("name", ["rtep-femto-seed0", "rtep-femto-seed1", "rtep-atto-seed0"])
def test_the_two_heads_that_lead_by_sampling_lead_by_weights_with_the_same_signs(name: str) -> None:
    sampled, screened = _sampled(name)[:2], _screened(name)[:2]
    assert [row.address for row in screened] == [head.address for head in sampled]
    assert [np.sign(row.cosine) for row in screened] == [np.sign(h.score) for h in sampled]
    assert all(row.q_value < 0.05 for row in screened)


def test_the_relational_heads_of_the_demonstration_have_the_largest_cosines() -> None:
    rows = sorted(_screened(demonstration().stem), key=lambda row: -abs(row.cosine))[:2]
    assert {str(row.address): bool(row.cosine > 0) for row in rows} == {"L0H3": True, "L0H2": False}
    assert all(abs(row.cosine) > 0.9 for row in rows)


def test_a_model_without_positions_of_words_has_no_relational_head_in_its_weights() -> None:
    assert not any(head.significant for head in _sampled("rte-femto-seed1"))
    assert min(row.q_value for row in _screened("rte-femto-seed1")) > 0.05
