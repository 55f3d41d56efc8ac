"""Heads of a diffusers pipeline are switched off for a call, and back on."""

import numpy as np
import pytest
import torch

from attnsearch.ablation import Ablation, Mode, ablated_pipeline
from attnsearch.axes import Branch, HeadAddress
from attnsearch.errors import ConfigError

LINES = [
    "a {colour1:red} {shape1:square} is {relation:above} a {shape2:circle}",
    "a {colour1:red} {shape1:square} is {relation:below} a {shape2:circle}",
]
TEXTS = ["a red square is above a circle", "a red square is below a circle"]
HEAD = HeadAddress(1, 0)


def paint(pipe, texts=TEXTS, **changes):
    settings = {
        "height": 32, "width": 32, "max_sequence_length": 24, "num_inference_steps": 2,
        "output_type": "latent", "use_resolution_binning": False, "clean_caption": False,
        "generator": [torch.Generator().manual_seed(seed) for seed in range(len(texts))],
    } | changes  # fmt: skip
    return pipe(texts, **settings).images.numpy()


def off(mode=Mode.ZERO, *heads, **more):
    return Ablation(heads=frozenset(heads or {HEAD}), mode=mode, **more)


@pytest.fixture
def pipe(load):
    return load("pixart")


def test_a_head_at_zero_is_one_whose_output_weights_are_zero(pipe):
    plain = paint(pipe)
    both = off(branches=frozenset(Branch))
    with ablated_pipeline(pipe, LINES, both):
        without = paint(pipe)
    assert not np.allclose(without, plain, atol=1e-3)
    assert np.array_equal(paint(pipe), plain)
    attention = pipe.transformer.transformer_blocks[HEAD.layer].attn2
    with torch.no_grad():
        attention.to_out[0].weight[:, : attention.to_out[0].in_features // attention.heads] = 0
    np.testing.assert_allclose(paint(pipe), without, atol=1e-4)


def test_nothing_ablated_changes_nothing(pipe):
    plain = paint(pipe)
    for ablation in (
        Ablation(heads=frozenset(), mode=Mode.ZERO),
        off(Mode.SCALE, factor=1),
        off(first_step=2),
    ):
        with ablated_pipeline(pipe, LINES, ablation):
            assert np.array_equal(paint(pipe), plain)


def test_what_is_hidden_does_not_matter(pipe):
    heads = [HeadAddress(layer, head) for layer in range(2) for head in range(2)]
    embedding, mask, *_ = pipe.encode_prompt(
        [TEXTS[0]] * 2,
        do_classifier_free_guidance=False,
        max_sequence_length=24,
        clean_caption=False,
    )
    embedding[1, 4] += 10  # the fifth token, `above`
    given = {"prompt_embeds": embedding, "prompt_attention_mask": mask, "guidance_scale": 1.0}
    first, second = _given(pipe, given)
    assert not np.allclose(first, second, atol=1e-4)
    lines = [LINES[0], LINES[0].replace("circle", "square")]
    with ablated_pipeline(pipe, lines, off(Mode.MASK, *heads)):
        first, second = _given(pipe, given)
    np.testing.assert_allclose(first, second, atol=1e-5)


def _given(pipe, given):
    return pipe(
        None, height=32, width=32, num_inference_steps=2, output_type="latent",
        use_resolution_binning=False, clean_caption=False, negative_prompt=None,
        generator=[torch.Generator().manual_seed(0) for _ in TEXTS], **given,
    ).images.numpy()  # fmt: skip


@pytest.mark.parametrize(
    ("ablation", "message"),
    [
        (off(Mode.MEAN), "zero, scale and mask"),
        (off(Mode.ZERO, HeadAddress(5, 0)), "no head L5H0"),
        (off(Mode.ZERO, HeadAddress(0, 0), into=frozenset({HEAD})), "everywhere alike"),
    ],
)
def test_what_a_pipeline_cannot_do_is_refused(pipe, ablation, message):
    with pytest.raises(ConfigError, match=message), ablated_pipeline(pipe, LINES, ablation):
        pass


def test_a_role_that_no_prompt_has_is_refused(pipe):
    masked = off(Mode.MASK, hide=frozenset({"verb"}))
    with (
        pytest.raises(ConfigError, match="no prompt has the role 'verb'"),
        ablated_pipeline(pipe, LINES, masked),
    ):
        pass


def test_joint_attention_is_refused(load):
    pipe = load("flux")
    with (
        pytest.raises(ConfigError, match="no cross-attention"),
        ablated_pipeline(pipe, LINES, off()),
    ):
        pass


def test_another_number_of_images_is_refused_and_the_pipeline_restored(pipe):
    plain = paint(pipe)
    with (
        pytest.raises(ConfigError, match="rows for 2 samples"),
        ablated_pipeline(pipe, LINES, off()),
    ):
        paint(pipe, texts=TEXTS[:1] * 3)
    assert np.array_equal(paint(pipe), plain)
