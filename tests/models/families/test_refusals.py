"""What cannot be watched is said, and where; nothing is recorded wrongly in silence."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.axes import Branch
from attnsearch.errors import ConfigError
from attnsearch.models import plain_attention
from attnsearch.models.families import find_family, guidance_layout, route
from attnsearch.models.families.sdpa import SdpaCall, padding_mask

LAYOUT = guidance_layout(2)


def run(tiny, **changed):
    with torch.no_grad(), route(tiny.transformer, plain_attention, layout=LAYOUT):
        return tiny.transformer(**{**tiny.case.inputs, **changed}, return_dict=False)[0]


def replace_processor(tiny, layer, call):
    """Give a layer a processor that bears an accepted name."""
    attention = tiny.transformer.get_submodule(tiny.case.layers[layer])
    name = type(attention.processor).__name__
    attention.set_processor(type(name, (), {"__call__": call})())


def test_an_unknown_transformer_is_refused_with_the_list_of_known_ones():
    class UNet(torch.nn.Module):
        pass

    with pytest.raises(ConfigError, match=r"UNet .* PixArtTransformer2DModel, .* LTXVideo"):
        find_family(UNet())


def test_a_subclass_is_served_as_its_base(load):
    transformer = load("pixart").transformer
    derived = type("MyPixArt", (type(transformer),), {})
    assert find_family(derived(**load("pixart").case.config)).name == "PixArt"


def test_a_compiled_block_is_refused(load):
    tiny = load("flux")
    tiny.transformer.transformer_blocks[1].compile(backend="eager")
    with pytest.raises(ConfigError, match="FluxTransformer2DModel is compiled"):
        run(tiny)


@pytest.mark.parametrize("name", ["flux", "wan", "ltx"])
def test_another_attention_backend_is_refused(load, name):
    tiny = load(name)
    tiny.transformer.set_attention_backend("_native_math")
    with pytest.raises(ConfigError, match=r"AttnProcessor of layer 0 .* backend _native_math"):
        run(tiny)
    tiny.transformer.set_attention_backend("native")
    run(tiny)


def test_a_processor_that_computes_attention_elsewhere_is_refused(load):
    tiny = load("pixart")
    replace_processor(tiny, 1, lambda self, attn, states, *args, **kwargs: states)
    with pytest.raises(ConfigError, match=r"AttnProcessor2_0 of layer 1 .* native"):
        run(tiny)


def test_two_attentions_in_one_call_are_refused(load):
    tiny = load("sd3")

    def twice(self, attn, states, encoder_hidden_states, **kwargs):
        query = states.unflatten(-1, (2, -1)).transpose(1, 2)
        text = encoder_hidden_states.unflatten(-1, (2, -1)).transpose(1, 2)
        joint = torch.cat([query, text], dim=2)
        for _ in range(2):
            F.scaled_dot_product_attention(joint, joint, joint)

    replace_processor(tiny, 0, twice)
    with pytest.raises(ConfigError, match=r"JointAttnProcessor2_0 of layer 0 .* more than once"):
        run(tiny)


def test_wan_conditioned_on_an_image_is_refused(load):
    wan = load("wan")
    config = {**wan.case.config, "image_dim": 12, "added_kv_proj_dim": 24}
    image = torch.zeros(2, 4, 12)
    text = torch.zeros(2, 512, 12)
    conditioned = SimpleNamespace(case=wan.case, transformer=type(wan.transformer)(**config))
    with pytest.raises(ConfigError, match=r"WanAttnProcessor of layer 0 .* more than once"):
        run(conditioned, encoder_hidden_states=text, encoder_hidden_states_image=image)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"dropout_p": 0.1}, "dropout"),
        ({"is_causal": True}, "causal masking"),
        ({"enable_gqa": True}, "grouped queries"),
    ],
)
def test_a_setting_that_sketches_ignore_is_refused(load, setting, said):
    tiny = load("sana")

    def call(self, attn, states, context, **kwargs):
        query, key = (x.unflatten(-1, (4, -1)).transpose(1, 2) for x in (states, context))
        F.scaled_dot_product_attention(query, key, key, **setting)

    replace_processor(
        tiny,
        0,
        lambda self, attn, states, encoder_hidden_states, attention_mask: call(
            self, attn, states, encoder_hidden_states
        ),
    )
    with pytest.raises(ConfigError, match=f"SanaAttnProcessor2_0 of layer 0 .* {said}"):
        run(tiny)


def test_skip_layer_guidance_is_refused(load):
    with pytest.raises(ConfigError, match=r"SD3Transformer2DModel left out .* \[1\]"):
        run(load("sd3"), skip_layers=[1])


def test_a_processor_set_meanwhile_is_noticed(load):
    tiny = load("hunyuandit")
    attention = tiny.transformer.get_submodule(tiny.case.layers[0])
    original = attention.processor
    with torch.no_grad(), route(tiny.transformer, plain_attention, layout=LAYOUT):
        attention.set_processor(original)
        with pytest.raises(ConfigError, match=r"left out the attention of layers \[0\]"):
            tiny.transformer(**tiny.case.inputs)


def test_reference_images_of_flux_are_refused(load):
    tiny = load("flux")
    latents, places = (tiny.case.inputs[name] for name in ("hidden_states", "img_ids"))
    reference = places.clone()
    reference[:, 0] = 1
    with pytest.raises(ConfigError, match=r"53 queries where the image grid \(4, 6\) and 5 text"):
        run(
            tiny,
            hidden_states=torch.cat([latents, latents], dim=1),
            img_ids=torch.cat([places, reference]),
        )


def test_ltx_without_a_grid_is_refused(load):
    with pytest.raises(ConfigError, match="num_frames, height and width"):
        run(load("ltx"), video_coords=torch.zeros(2, 3, 48), num_frames=None)


def test_attention_outside_a_forward_pass_is_refused(load):
    tiny = load("sana")
    attention = tiny.transformer.get_submodule(tiny.case.layers[0])
    with (
        pytest.raises(ConfigError, match="outside a forward pass"),
        route(tiny.transformer, plain_attention, layout=LAYOUT),
    ):
        attention(torch.zeros(2, 4, 16), torch.zeros(2, 5, 16))


@pytest.mark.parametrize("name", ["pixart", "hunyuandit", "flux"])
def test_fused_projections_are_watched_too(load, name):
    tiny = load(name)
    tiny.transformer.fuse_qkv_projections()
    with torch.no_grad():
        expected = tiny.transformer(**tiny.case.inputs, return_dict=False)[0]
    torch.testing.assert_close(run(tiny), expected, rtol=0, atol=1e-5)


ROWS, HEADS, QUERIES, KEYS = 2, 3, 4, 5
KEPT = st.lists(
    st.lists(st.booleans(), min_size=KEYS, max_size=KEYS).filter(any), min_size=ROWS, max_size=ROWS
)


def mask_of(attn_mask):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(ROWS, HEADS, QUERIES, 8, generator=generator)
    key = torch.randn(ROWS, HEADS, KEYS, 8, generator=generator)
    call = SdpaCall(query, key, key, attn_mask=attn_mask)
    return call, padding_mask(call, "Processor of layer 7")


@given(
    KEPT,
    st.sampled_from([-10000.0, -1e9, -torch.inf, torch.finfo(torch.float32).min, None]),
    st.sampled_from([(1, 1), (HEADS, 1), (1, QUERIES), (HEADS, QUERIES)]),
)
def test_every_way_to_write_a_padding_mask_is_read_alike(kept, bias, repeats):
    expected = torch.tensor(kept)
    mask = expected[:, None, None].expand(-1, *repeats, -1)
    if bias is not None:
        mask = torch.zeros(mask.shape).masked_fill(~mask, bias)
    call, read = mask_of(mask)
    assert torch.equal(read, expected)
    torch.testing.assert_close(
        F.scaled_dot_product_attention(*call[:3], attn_mask=read[:, None, None]),
        F.scaled_dot_product_attention(*call[:4]),
    )


@pytest.mark.parametrize("bias", [-10000.0, -5000.0, 3.0])
def test_a_row_biased_alike_everywhere_is_a_row_without_a_mask(bias):
    mask = torch.full((ROWS, 1, 1, KEYS), bias)
    call, read = mask_of(mask)
    assert read.all()
    torch.testing.assert_close(
        F.scaled_dot_product_attention(*call[:3]),
        F.scaled_dot_product_attention(*call[:4]),
        rtol=0,
        atol=5e-3,
    )


@pytest.mark.parametrize("mask", [torch.full((1, KEYS), -torch.inf), torch.zeros(1, KEYS).bool()])
def test_a_row_without_any_key_gives_zeros_there_and_here(mask):
    call, read = mask_of(mask)
    assert not read.any()
    for attn_mask in (call.attn_mask, read[:, None, None]):
        assert (F.scaled_dot_product_attention(*call[:3], attn_mask=attn_mask) == 0).all()


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(QUERIES, KEYS).tril().bool(),
        torch.zeros(QUERIES, KEYS).masked_fill(torch.ones(QUERIES, KEYS).triu() > 0, -10000.0),
        torch.arange(float(HEADS * KEYS)).view(1, HEADS, 1, KEYS) * -10000,
        torch.arange(float(KEYS)) * -1,
        torch.tensor([0.0, 0.0, -999.0, -10000.0, 0.0]),
        torch.tensor([0.0, 0.0, torch.nan, 0.0, 0.0]),
    ],
    ids=["causal", "causal bias", "by head", "distance", "too near", "nan"],
)
def test_a_mask_that_is_no_padding_mask_is_refused_by_name(mask):
    with pytest.raises(ConfigError, match="Processor of layer 7 has an attention mask"):
        mask_of(mask)


@pytest.mark.parametrize("rows", [0, 1, 3, 5, 6])
def test_a_layout_takes_one_or_two_branches(rows):
    with pytest.raises(ConfigError, match=f"{rows} rows for 2 samples"):
        LAYOUT(rows, Branch.COND)
