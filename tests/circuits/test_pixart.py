"""A PixArt transformer of diffusers is read like our own model."""

import numpy as np
import pytest
import torch

from attnsearch.circuits import CircuitModel, qk_maps
from attnsearch.models import DiT, DiTConfig

LAYERS, HEADS, CHANNELS, GRID, TEXT = 2, 2, 8, 4, 12


@pytest.fixture(scope="module")
def transformer():
    from diffusers import PixArtTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PixArtTransformer2DModel(
            num_attention_heads=HEADS,
            attention_head_dim=CHANNELS,
            num_layers=LAYERS,
            cross_attention_dim=HEADS * CHANNELS,
            caption_channels=TEXT,
            sample_size=2 * GRID,
            use_additional_conditions=False,
        ).eval()


@pytest.fixture(scope="module")
def words():
    return torch.randn(5, TEXT, generator=torch.Generator().manual_seed(1))


def test_its_maps_are_the_logits_of_bare_positions(transformer, words):
    maps = qk_maps(CircuitModel(transformer), words)
    assert maps.shape == (LAYERS, HEADS, len(words), GRID**2)
    with torch.no_grad():
        source = transformer.caption_projection(words).double().numpy()
    position = transformer.pos_embed.pos_embed[0].double().numpy()
    for layer, block in enumerate(transformer.transformer_blocks):
        attention = block.attn2.double()
        query, key = (
            tokens @ side.weight.detach().numpy().T + side.bias.detach().numpy()
            for tokens, side in ((position, attention.to_q), (source, attention.to_k))
        )
        for head in range(HEADS):
            own = slice(head * CHANNELS, (head + 1) * CHANNELS)
            expected = key[:, own] @ query[:, own].T / CHANNELS**0.5
            np.testing.assert_allclose(maps[layer, head], expected, atol=1e-5)
        attention.float()


def test_it_has_the_maps_of_our_model_with_the_same_weights(transformer, words):
    ours = DiT(
        DiTConfig(
            image_side=2 * GRID, image_channels=4, patch=2, depth=LAYERS, width=HEADS * CHANNELS,
            heads=HEADS, mlp_ratio=4.0, text_channels=TEXT, text_length=len(words),
        )
    )  # fmt: skip
    projection = transformer.caption_projection
    copied = [
        (ours.caption_mlp[0], projection.linear_1),
        (ours.caption_mlp[2], projection.linear_2),
    ]
    for block, theirs in zip(ours.blocks, transformer.transformer_blocks, strict=True):
        copied += [
            (block.cross_attention.query, theirs.attn2.to_q),
            (block.cross_attention.key, theirs.attn2.to_k),
        ]
    for to, source in copied:
        to.load_state_dict(source.state_dict())
    # Diffusers spreads the positions of any grid over the same range; ours count tokens.
    ours.position.copy_(transformer.pos_embed.pos_embed[0])
    torch.testing.assert_close(
        qk_maps(CircuitModel(transformer), words), qk_maps(CircuitModel(ours), words)
    )


def test_heads_write_what_attention_to_one_word_gives(transformer, words):
    """Of all heads together, the output's bias aside: with one key, all attention is its."""
    model = CircuitModel(transformer)
    target = torch.randn(1, 3, HEADS * CHANNELS, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        source = model.project_caption(words)
        for layer, block in zip(model.layers, transformer.transformer_blocks, strict=True):
            written = layer.writes(source).sum(0) + block.attn2.to_out[0].bias
            for word, expected in zip(source, written, strict=True):
                given = block.attn2(target, encoder_hidden_states=word[None, None])[0]
                torch.testing.assert_close(given, expected.expand_as(given))
