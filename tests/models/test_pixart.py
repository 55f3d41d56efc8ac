from dataclasses import asdict

import pytest
import torch

from attnsearch.errors import CheckpointError
from attnsearch.models import DiT
from attnsearch.models.pixart import convert_pixart, infer_config

PAPER_SIZES = {
    "B": (12, 768, 12),
    "S": (12, 384, 6),
    "mini": (6, 384, 6),
    "micro": (6, 192, 3),
    "nano": (3, 192, 3),
}


def in_diffusers(weights, heads, scale):
    """The model of diffusers with the same weights."""
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
    depth = sum(name.endswith("attn.qkv.bias") for name in weights)
    model = PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=channels,
        out_channels=2 * channels,
        num_layers=depth,
        cross_attention_dim=width,
        sample_size=patch * int(weights["pos_embed"].shape[1] ** 0.5),
        patch_size=patch,
        norm_type="ada_norm_single",
        interpolation_scale=scale,
        use_additional_conditions=False,
        caption_channels=weights["y_embedder.y_embedding"].shape[1],
    )
    embedder = "adaln_single.emb.timestep_embedder.linear"
    names = {
        "x_embedder.proj": "pos_embed.proj",
        "t_embedder.mlp.0": f"{embedder}_1",
        "t_embedder.mlp.2": f"{embedder}_2",
        "t_block.1": "adaln_single.linear",
        "y_embedder.y_proj.fc1": "caption_projection.linear_1",
        "y_embedder.y_proj.fc2": "caption_projection.linear_2",
        "final_layer.linear": "proj_out",
    }
    theirs = {"scale_shift_table": weights["final_layer.scale_shift_table"]}
    for layer in range(depth):
        old, new = f"blocks.{layer}", f"transformer_blocks.{layer}"
        theirs[f"{new}.scale_shift_table"] = weights[f"{old}.scale_shift_table"]
        names |= {
            f"{old}.attn.proj": f"{new}.attn1.to_out.0",
            f"{old}.cross_attn.q_linear": f"{new}.attn2.to_q",
            f"{old}.cross_attn.proj": f"{new}.attn2.to_out.0",
            f"{old}.mlp.fc1": f"{new}.ff.net.0.proj",
            f"{old}.mlp.fc2": f"{new}.ff.net.2",
        }
        for kind in ("weight", "bias"):
            qkv = weights[f"{old}.attn.qkv.{kind}"]
            kv = weights[f"{old}.cross_attn.kv_linear.{kind}"]
            theirs |= {
                f"{new}.attn1.to_q.{kind}": qkv[:width],
                f"{new}.attn1.to_k.{kind}": qkv[width : 2 * width],
                f"{new}.attn1.to_v.{kind}": qkv[2 * width :],
                f"{new}.attn2.to_k.{kind}": kv[:width],
                f"{new}.attn2.to_v.{kind}": kv[width:],
            }
    for old, new in names.items():
        for kind in ("weight", "bias"):
            theirs[f"{new}.{kind}"] = weights[f"{old}.{kind}"]
    model.load_state_dict(theirs)
    return model.eval()


def build(converted):
    """Our model of a conversion."""
    config, weights = converted
    model = DiT(config)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model


@pytest.mark.parametrize(
    ("sizes", "heads", "scale"),
    [
        ({"depth": 2, "width": 64, "grid": 8}, 1, 1.0),
        ({"depth": 1, "width": 128, "grid": 16}, 2, 2.0),
        ({"depth": 2, "width": 144, "grid": 8}, 2, 0.5),
        ({"depth": 1, "width": 64, "grid": 8, "channels": 3, "patch": 4, "outputs": 6}, 4, 1.0),
    ],
    ids=str,
)
def test_the_prediction_is_that_of_diffusers_on_the_same_tensors(
    pixart_weights, sizes, heads, scale
):
    weights = pixart_weights(**sizes, scale=scale)
    config, _ = converted = convert_pixart(weights, heads)
    ours, theirs = build(converted), in_diffusers(weights, heads, scale)
    generator = torch.Generator().manual_seed(1)
    side, channels = config.image_side, config.image_channels
    image = torch.randn(3, channels, side, side, generator=generator)
    timestep = torch.tensor([999.0, 357.0, 71.0])
    text = torch.randn(3, 20, 32, generator=generator)
    mask = torch.arange(20) < torch.tensor([[1], [9], [20]])
    with torch.no_grad():
        expected = theirs(
            image, text, timestep, encoder_attention_mask=mask.long(), return_dict=False
        )[0]
        prediction = ours(image, timestep, text, mask)
    assert expected.shape[1] == 2 * channels
    assert expected[:, :channels].std() > 0.1
    torch.testing.assert_close(prediction, expected[:, :channels], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PAPER_SIZES)
def test_the_papers_sizes_are_read_off_the_tensors(empty_pixart, name):
    depth, width, heads = PAPER_SIZES[name]
    config, weights = convert_pixart(empty_pixart(depth, width, grid=8))
    assert asdict(config) == {
        "image_side": 16,
        "image_channels": 4,
        "patch": 2,
        "depth": depth,
        "width": width,
        "heads": heads,
        "mlp_ratio": 4.0,
        "text_channels": 4096,
        "text_length": 20,
        "position_scale": 1.0,
    }
    assert weights["final.weight"].shape == (16, width)


@pytest.mark.parametrize("grid", [16, 32])
def test_pixart_alpha_xl_has_sixteen_heads(empty_pixart, grid):
    config = infer_config(empty_pixart(28, 1152, grid, text_length=120))
    assert (config.depth, config.heads, config.grid, config.text_length) == (28, 16, grid, 120)


def test_a_model_without_a_variance_predicts_the_same(pixart_weights):
    weights = pixart_weights()
    noise_rows = (torch.arange(4 * 8) % 8) < 4  # the channel runs fastest
    alone = dict(weights)
    for kind in ("weight", "bias"):
        name = f"final_layer.linear.{kind}"
        alone[name] = weights[name][noise_rows]
    (config, ours), (same_config, same) = convert_pixart(weights), convert_pixart(alone)
    assert same_config == config
    assert all(torch.equal(ours[name], same[name]) for name in ours)


def test_any_mlp_ratio_gives_back_the_hidden_width(pixart_weights):
    for hidden in (64, 100, 321):
        config, weights = convert_pixart(pixart_weights(hidden=hidden))
        assert weights["blocks.0.mlp.0.weight"].shape[0] == hidden
        assert round(config.width * config.mlp_ratio) == hidden


def test_the_null_caption_is_the_one_it_was_trained_with(pixart_weights):
    weights = pixart_weights()
    model = build(convert_pixart(weights))
    assert torch.equal(model.null_embedding, weights["y_embedder.y_embedding"])


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5, 4.0, 4 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_positions_are_rebuilt_at_the_scale_of_the_file(
    pixart_weights, pixart_positions, scale, dtype
):
    weights = {k: t.to(dtype) for k, t in pixart_weights(scale=scale).items()}
    config, _ = converted = convert_pixart(weights)
    assert config.position_scale == pytest.approx(scale, rel=1e-12)
    expected = pixart_positions(8, 64, scale)[0]
    torch.testing.assert_close(build(converted).position, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p + 0.01,
        lambda p: p.roll(1, 1),
        lambda p: p.flip(2),
        lambda p: torch.zeros_like(p),
        lambda p: p[:, :-1],
        lambda p: p[0],
        lambda p: torch.full_like(p, torch.nan),
        lambda p: p.unflatten(1, (8, 8)).transpose(1, 2).flatten(1, 2),
    ],
    ids=["moved", "rolled", "flipped", "zero", "short", "flat", "nan", "transposed"],
)
def test_other_positions_are_refused(pixart_weights, change):
    weights = pixart_weights()
    weights["pos_embed"] = change(weights["pos_embed"])
    with pytest.raises(CheckpointError, match="pos_embed"):
        convert_pixart(weights)


def test_every_missing_tensor_is_named(pixart_weights):
    weights = pixart_weights()
    for name in weights:
        left = {key: tensor for key, tensor in weights.items() if key != name}
        with pytest.raises(CheckpointError, match="has no") as caught:
            convert_pixart(left)
        assert name in str(caught.value)


def test_every_tensor_of_another_shape_is_named(pixart_weights):
    weights = pixart_weights()
    # These tell the sizes: a change makes the other tensors look wrong.
    telling = {"x_embedder.proj.weight", "blocks.0.mlp.fc1.weight", "y_embedder.y_embedding"}
    for name, tensor in weights.items():
        for changed in (tensor[..., :-1], tensor[None], tensor[:0]):
            with pytest.raises(CheckpointError) as caught:
                convert_pixart(weights | {name: changed})
            assert name in str(caught.value) or name in telling
            assert "\n" not in str(caught.value)


def test_every_tensor_that_is_not_finite_is_named(pixart_weights):
    weights = pixart_weights()
    for name, tensor in weights.items():
        broken = tensor.clone()
        broken.flatten()[-1] = torch.nan
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            convert_pixart(weights | {name: broken})
