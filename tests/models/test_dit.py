from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.axes import Site
from attnsearch.errors import ConfigError
from attnsearch.models import SIZES, Attention, DiT, DiTConfig, plain_attention
from attnsearch.models.dit import ALL_COND, Block, position_embedding, timestep_embedding

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
PAPER_SIZES = {
    "B": (12, 768, 12, 121.5e6),
    "S": (12, 384, 6, 31.3e6),
    "mini": (6, 384, 6, 17.1e6),
    "micro": (6, 192, 3, 4.70e6),
    "nano": (3, 192, 3, 2.92e6),
}


def config(**changes):
    sizes = {"image_side": 16, "depth": 1, "width": 16, "heads": 2, "mlp_ratio": 2.0}
    return DiTConfig(**(sizes | {"text_channels": 8, "text_length": 5} | changes))


def parameters(size, **reads):
    with torch.device("meta"):
        model = DiT(config(**asdict(SIZES[size]), **reads))
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return tiny_checkpoint.build()


@pytest.fixture
def inputs(model):
    """A batch of three for `model`: image, timestep, text, mask."""
    generator = torch.Generator().manual_seed(1)
    size = model.config
    mask = torch.arange(size.text_length) < torch.tensor([[3], [7], [size.text_length]])
    return (
        torch.randn(3, 3, size.image_side, size.image_side, generator=generator),
        torch.tensor([20.0, 500.0, 990.0]),
        torch.randn(3, size.text_length, size.text_channels, generator=generator),
        mask,
    )


@pytest.mark.parametrize("name", PAPER_SIZES)
def test_the_papers_sizes_are_the_papers(name):
    depth, width, heads, count = PAPER_SIZES[name]
    size = SIZES[name]
    assert (size.depth, size.width, size.heads, size.mlp_ratio) == (depth, width, heads, 4.0)
    # Theirs reads 4 latent channels by patches of 2 and also predicts a variance.
    reads = {"image_channels": 4, "patch": 2, "text_channels": 4096, "text_length": 20}
    assert parameters(name, **reads) == pytest.approx(count, rel=0.01)


@pytest.mark.parametrize("name", sorted(SIZES.keys() - PAPER_SIZES.keys()))
def test_the_cpu_sizes_are_small_with_four_layers_of_four_heads(name):
    assert SIZES[name].depth >= 4
    assert SIZES[name].heads >= 4
    assert 0.25e6 < parameters(name, text_channels=64) < 1.6e6


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_cutting_into_patches_and_joining_them_gives_the_image_back(rows, grid, patch, channels):
    model = DiT(config(image_side=grid * patch, patch=patch, image_channels=channels))
    image = torch.randn(rows, channels, grid * patch, grid * patch)
    tokens = model._to_patches(image)
    assert tokens.shape == (rows, grid**2, channels * patch**2)
    assert torch.equal(model._to_image(tokens), image)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (3, 0), (0, 3), (2, 1)])
def test_image_tokens_are_row_major(x, y):
    model = DiT(config(image_side=16, patch=4))
    image = torch.zeros(1, 3, 16, 16)
    image[:, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 1
    lit = model._to_patches(image)[0].sum(1).nonzero()
    assert lit.tolist() == [[y * 4 + x]]


@given(st.integers(1, 8), st.integers(1, 8).map(lambda n: 4 * n))
def test_the_first_half_of_a_position_tells_the_column_the_second_the_row(grid, width):
    position = position_embedding(grid, width).unflatten(0, (grid, grid))
    column, row = position.chunk(2, dim=-1)
    assert torch.equal(column, column[:1].expand_as(column))
    assert torch.equal(row, row[:, :1].expand_as(row))
    assert torch.equal(column[0], row[:, 0])
    assert len(position.flatten(0, 1).unique(dim=0)) == grid**2


def test_a_position_is_a_block_of_sines_and_one_of_cosines():
    half = position_embedding(8, 32)[:8, :16].double()
    angle = torch.tensor([[x * 10000 ** (-k / 8) for k in range(8)] for x in range(8)])
    torch.testing.assert_close(half[:, :8], angle.sin().double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(half[:, 8:], angle.cos().double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_scale_divides_the_coordinates(scale):
    fine = position_embedding(4 * scale, 32, scale).unflatten(0, (4 * scale, 4 * scale))
    coarse = position_embedding(4, 32).unflatten(0, (4, 4))
    assert torch.equal(fine[::scale, ::scale], coarse)
    assert not torch.equal(fine[:4, :4], coarse)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_position_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ConfigError, match="position_scale"):
        config(position_scale=scale)


def test_the_models_positions_have_the_scale_of_its_sizes():
    model = DiT(config(position_scale=2.0))
    assert torch.equal(model.position, position_embedding(4, 16, 2.0))
    assert torch.equal(DiT(config()).position, position_embedding(4, 16))


def test_timesteps_are_told_apart_over_the_whole_range():
    embedding = timestep_embedding(torch.arange(0, 1001, dtype=torch.float32))
    torch.testing.assert_close(embedding.square().sum(1), torch.full((1001,), 128.0))
    assert (embedding[1:] - embedding[:-1]).norm(dim=1).min() > 0.1


def raw_queries(block, stream, modulation):
    """What the cross-attention of `block` asks, [row, query, width], for a residual stream."""
    asked = []

    def spy(call):
        asked.append(call.query.transpose(1, 2).flatten(2))
        return plain_attention(call)

    block.cross_attention.attend = spy
    source, mask = torch.randn(1, 3, 16), torch.ones(1, 3, dtype=torch.bool)
    block(stream, source, mask, modulation, ALL_COND)
    return asked[0]


@pytest.mark.parametrize("shift", [1.0, 30.0])
def test_cross_attention_reads_the_raw_residual_stream(shift):
    torch.manual_seed(0)
    block = Block(config(), layer=0).requires_grad_(requires_grad=False)
    # Self-attention is gated off, so that the stream reaches cross-attention as it came.
    modulation = torch.randn(1, 6, 16)
    modulation[:, 2] = -block.table[2]
    stream, added = torch.randn(1, 16, 16), shift * torch.randn(16)
    change = raw_queries(block, stream + added, modulation) - raw_queries(block, stream, modulation)
    expected = (block.cross_attention.query.weight @ added).expand_as(change)
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-4)


def test_cross_attention_is_neither_modulated_nor_gated():
    torch.manual_seed(0)
    block = Block(config(), layer=0).requires_grad_(requires_grad=False)
    modulation = torch.randn(1, 6, 16)
    modulation[:, 2] = -block.table[2]
    stream = torch.randn(1, 16, 16)
    expected = raw_queries(block, stream, modulation)
    modulation[:, [0, 1, 3, 4, 5]] += 1
    assert torch.equal(raw_queries(block, stream, modulation), expected)


def test_masked_text_tokens_have_no_influence(model, inputs):
    image, timestep, text, mask = inputs
    noisy = torch.where(mask[..., None], text, 100 * torch.randn_like(text))
    assert not torch.equal(noisy, text)
    expected = model(image, timestep, text, mask)
    torch.testing.assert_close(model(image, timestep, noisy, mask), expected, **CLOSE)


@pytest.mark.parametrize("argument", range(4))
def test_every_argument_matters(model, inputs, argument):
    changed = list(inputs)
    value = changed[argument]
    changed[argument] = value.roll(1, -1) if value.dtype == torch.bool else value * 0.5
    difference = model(*changed) - model(*inputs)
    assert (difference.abs().amax((1, 2, 3)) > 1e-3).any()


def test_a_row_does_not_depend_on_the_other_rows(model, inputs):
    together = model(*inputs)
    for row in range(3):
        alone = model(*(tensor[row : row + 1] for tensor in inputs))
        torch.testing.assert_close(alone[0], together[row], **CLOSE)


def test_permuting_the_text_tokens_changes_nothing(model, inputs):
    image, timestep, text, mask = inputs
    order = torch.randperm(text.shape[1], generator=torch.Generator().manual_seed(0))
    permuted = model(image, timestep, text[:, order], mask[:, order])
    torch.testing.assert_close(permuted, model(*inputs), **CLOSE)


def test_a_fresh_model_predicts_zero(inputs, tiny_checkpoint):
    assert not DiT(tiny_checkpoint.model)(*inputs).any()


def test_attention_modules_are_listed_by_layer_and_site(model):
    for site in (Site.CROSS, Site.SELF):
        modules = model.attention_modules(site)
        assert [module.layer for module in modules] == [0, 1]
        assert all(module.site is site for module in modules)
    assert model.attention_modules(Site.JOINT) == []


def test_every_attention_call_goes_through_its_hook_point(model, inputs):
    called = []

    def spy(call):
        called.append((call.layer, call.site, call.key_mask is not None))
        return plain_attention(call)

    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    expected = model(*inputs)
    for attention in attentions:
        attention.attend = spy
    try:
        watched = model(*inputs)
    finally:
        for attention in attentions:
            attention.attend = plain_attention
    assert torch.equal(watched, expected)
    assert called == [
        (0, Site.SELF, False), (0, Site.CROSS, True), (1, Site.SELF, False), (1, Site.CROSS, True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"patch": 3}, {"heads": 3}, {"width": 18, "heads": 2}, {"depth": 0}, {"heads": 0}],
    ids=str,
)
def test_sizes_that_do_not_divide_are_refused(wrong):
    with pytest.raises(ConfigError):
        replace(config(), **wrong)
