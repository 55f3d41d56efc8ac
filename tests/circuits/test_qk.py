"""QK maps are what their formula says, and a relation's map is a mean of them."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch

from attnsearch.axes import RELATIONS, ROLES, Site
from attnsearch.circuits import CircuitModel, qk_maps, relation_maps
from attnsearch.errors import MetricError
from attnsearch.metrics.meaning import token_positions

Build = Callable[..., Any]


def test_qk_maps_equal_the_formula_written_out_in_float64(untrained: Build) -> None:
    model, text, _ = untrained(0)
    words = text.embedding[0, :5]
    found = qk_maps(CircuitModel(model), words)
    source = model.caption_mlp(words).double().numpy()
    position = model.position.double().numpy()
    heads = model.config.heads
    channels = model.config.width // heads
    assert found.shape == (model.config.depth, heads, len(words), model.config.grid**2)
    for layer, attention in enumerate(model.attention_modules(Site.CROSS)):
        query_weight, query_bias, key_weight, key_bias = (
            t.double().numpy()
            for linear in (attention.query, attention.key)
            for t in (linear.weight, linear.bias)
        )
        for head in range(heads):
            rows = slice(head * channels, (head + 1) * channels)
            for word in range(len(words)):
                key = key_weight[rows] @ source[word] + key_bias[rows]
                expected = [
                    (query_weight[rows] @ code + query_bias[rows]) @ key / sqrt(channels)
                    for code in position
                ]
                np.testing.assert_allclose(found[layer, head, word], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", ["small", "paper"])
def test_the_map_of_a_relation_is_the_mean_over_its_prompts_and_their_words(
    untrained: Build, task: str
) -> None:
    model, text, captions = untrained(1, task)
    circuit = CircuitModel(model)
    of_prompt = []
    for embedding, roles in zip(text.embedding, text.roles, strict=True):
        is_relation = roles[:, ROLES.index("relation")] == 1
        of_prompt.append(qk_maps(circuit, embedding[is_relation]).double().mean(dim=2).numpy())
    maps, dipoles = relation_maps(circuit, text, captions)
    for index, name in enumerate(RELATIONS):
        mine = [m for m, c in zip(of_prompt, captions, strict=True) if c.relation == name]
        np.testing.assert_allclose(maps[:, :, index], np.mean(mine, axis=0), atol=1e-4)
    expected = np.stack(of_prompt) @ token_positions(circuit.grid)
    np.testing.assert_allclose(dipoles, expected, atol=1e-3)


def test_a_relation_that_no_prompt_states_is_named(untrained: Build) -> None:
    model, text, captions = untrained(0)
    kept = [i for i, caption in enumerate(captions) if caption.relation != "left"]
    some = type(text)(*(t[torch.tensor(kept)] for t in text))
    with pytest.raises(MetricError, match="none states 'left'"):
        relation_maps(CircuitModel(model), some, [captions[i] for i in kept])


def test_heads_write_what_attention_to_one_word_gives(planted):
    built = planted.build()
    model = CircuitModel(built)
    source = torch.randn(4, planted.model.width, generator=torch.Generator().manual_seed(0))
    target = torch.randn(1, 3, planted.model.width, generator=torch.Generator().manual_seed(1))
    modules = built.attention_modules(Site.CROSS)
    for layer, module in zip(model.layers, modules, strict=True):
        written = layer.writes(source).sum(0) + module.out.bias
        for word, expected in zip(source, written, strict=True):
            given = module(target, word[None, None], ())[0]
            torch.testing.assert_close(given, expected.expand_as(given), rtol=1e-4, atol=1e-4)
