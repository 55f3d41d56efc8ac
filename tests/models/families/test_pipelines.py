"""What the pipelines of diffusers make of branches and steps, run for real without encoders."""

import pytest
import torch

from attnsearch.axes import Branch
from attnsearch.models import plain_attention
from attnsearch.models.families import guidance_layout, route

STEPS = 2
SIZES = {"num_inference_steps": STEPS, "output_type": "latent"}
NO_ENCODERS = {"vae": None, "text_encoder": None, "tokenizer": None}

UNMASKED = ("prompt_embeds",)
MASKED = ("prompt_embeds", "prompt_attention_mask")
POOLED = ("prompt_embeds", "pooled_prompt_embeds")

PIPELINES = {
    "PixArtAlphaPipeline": (
        "pixart",
        "DDPMScheduler",
        {},
        {"height": 64, "width": 96, "use_resolution_binning": False, "negative_prompt": None},
        MASKED,
    ),
    "PixArtSigmaPipeline": (
        "pixart",
        "DDPMScheduler",
        {},
        {"height": 64, "width": 96, "use_resolution_binning": False, "negative_prompt": None},
        MASKED,
    ),
    "SanaPipeline": (
        "sana",
        "FlowMatchEulerDiscreteScheduler",
        {},
        {"height": 128, "width": 192, "use_resolution_binning": False, "negative_prompt": None},
        MASKED,
    ),
    "HunyuanDiTPipeline": (
        "hunyuandit",
        "DDPMScheduler",
        {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
            "text_encoder_2": None,
            "tokenizer_2": None,
        },
        {"height": 64, "width": 96, "use_resolution_binning": False},
        (*MASKED, "prompt_embeds_2", "prompt_attention_mask_2"),
    ),
    "StableDiffusion3Pipeline": (
        "sd3",
        "FlowMatchEulerDiscreteScheduler",
        {
            "text_encoder_2": None,
            "tokenizer_2": None,
            "text_encoder_3": None,
            "tokenizer_3": None,
        },
        {"height": 64, "width": 96},
        POOLED,
    ),
    "FluxPipeline": (
        "flux",
        "FlowMatchEulerDiscreteScheduler",
        {"text_encoder_2": None, "tokenizer_2": None},
        {"height": 64, "width": 96, "true_cfg_scale": 3.0},
        POOLED,
    ),
    "WanPipeline": (
        "wan",
        "FlowMatchEulerDiscreteScheduler",
        {},
        {"height": 64, "width": 96, "num_frames": 5},
        UNMASKED,
    ),
    "LTXPipeline": (
        "ltx",
        "FlowMatchEulerDiscreteScheduler",
        {},
        {"height": 128, "width": 192, "num_frames": 9},
        MASKED,
    ),
}
SHAPES = {
    "prompt_embeds": lambda case: case.inputs["encoder_hidden_states"],
    "prompt_embeds_2": lambda case: case.inputs["encoder_hidden_states_t5"],
    "pooled_prompt_embeds": lambda case: case.inputs["pooled_projections"],
    "prompt_attention_mask": lambda case: torch.ones(
        case.inputs["encoder_hidden_states"].shape[:2]
    ),
    "prompt_attention_mask_2": lambda case: torch.ones(2, 4),
}


def sampled(load, name, positive, negative):
    """First-layer text keys by (step, branch), and grids, of one guided sampling of one image."""
    import diffusers

    family, scheduler, parts, settings, texts = PIPELINES[name]
    tiny = load(family)
    pipeline = getattr(diffusers, name)(
        **NO_ENCODERS,
        **parts,
        transformer=tiny.transformer,
        scheduler=getattr(diffusers, scheduler)(),
    )
    pipeline.set_progress_bar_config(disable=True)
    inputs = {}
    for text in texts:
        rows = SHAPES[text](tiny.case)
        inputs[text] = rows[positive : positive + 1]
        inputs[f"negative_{text}"] = rows[negative : negative + 1]
    passes, keys = [], {}

    def attend(call):
        if call.layer == 0:
            for branch, rows in call.branches:
                of_text = call.key[rows][:, :, call.text_keys or slice(None)]
                place = passes[-1].step, branch
                assert place not in keys
                keys[place] = of_text
        return plain_attention(call)

    generator = torch.Generator().manual_seed(0)
    with route(tiny.transformer, attend, layout=guidance_layout(1), on_pass=passes.append):
        pipeline(**inputs, **settings, **SIZES, generator=generator)
    return keys, passes


@pytest.mark.parametrize("name", PIPELINES)
def test_branches_and_steps_are_those_of_the_pipeline(load, name):
    keys, passes = sampled(load, name, positive=0, negative=1)
    swapped, _ = sampled(load, name, positive=1, negative=0)
    assert set(keys) == {(step, branch) for step in range(STEPS) for branch in Branch}
    assert {running.grid[-2:] for running in passes} == {(4, 6)}
    cond, uncond = keys[0, Branch.COND], keys[0, Branch.UNCOND]
    torch.testing.assert_close(cond, swapped[0, Branch.UNCOND])
    torch.testing.assert_close(uncond, swapped[0, Branch.COND])
    assert (cond - uncond).abs().max() > 1e-2
