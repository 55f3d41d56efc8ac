"""Tiny pipelines of the real diffusers classes, randomly initialised, with tokenizers and all.

Texts fall into many tokens on purpose: letters for CLIP, Gemma and T5 with a few longer pieces,
beginnings and rests of words for BERT.
"""

import json
import string

import pytest
import torch
import transformers
from tokenizers import processors

LETTERS = string.ascii_letters + "-.,'"
PIECES = ("squ", "are", "cir", "cle", "abo", "ve", "red", "bl")
WORDS = ("a", "red", "blue", "square", "circle", "above", "below", "left", "of", "right")


def t5_tokenizer():
    scored = [("▁", -3.0), *((f"▁{piece}", -4.0) for piece in PIECES)]
    scored += [(piece, -5.0) for piece in PIECES] + [(letter, -9.0) for letter in LETTERS]
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    return transformers.T5Tokenizer(vocab=specials + scored, extra_ids=0)


def clip_tokenizer():
    """The real one writes bytes as printable letters; of ours there are letters only."""
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{x}</w>" for x in LETTERS)]
    merges = [("r", "e"), ("re", "d</w>"), ("s", "q"), ("sq", "u")]
    tokens += ["".join(pair) for pair in merges]
    return transformers.CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=merges,
        model_max_length=77,
    )


def gemma_tokenizer():
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS, "re", "red"]
    tokenizer = transformers.GemmaTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[("r", "e"), ("re", "d")],
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


def bert_tokenizer():
    pieces = sorted({word[:2] for word in WORDS} | {f"##{word[2:]}" for word in WORDS if word[2:]})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *pieces]
    return transformers.BertTokenizer(
        vocab={token: i for i, token in enumerate(dict.fromkeys(tokens))}
    )


def t5_encoder(width):
    config = transformers.T5Config(
        vocab_size=128, d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config)


def clip_encoder(width, *, projected):
    config = transformers.CLIPTextConfig(
        vocab_size=128, hidden_size=width, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, projection_dim=width,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    kind = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
    return getattr(transformers, kind)(config)


def kl(channels=4, *, blocks=4, shift=None):
    """A VAE of 2 ** (blocks - 1) pixels a cell."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=channels,
        layers_per_block=1,
        norm_num_groups=2,
        shift_factor=shift,
    )


def pixart():
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    return PixArtAlphaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(12),
        vae=kl(),
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=2, cross_attention_dim=16,
            caption_channels=12, sample_size=8,
        ),
        scheduler=DPMSolverMultistepScheduler(),
    )  # fmt: skip


def sana_parts(scheduler, **settings):
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    gemma = transformers.Gemma2Config(
        vocab_size=128, hidden_size=12, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    blocks = {
        f"{part}_{what}": value
        for part in ("encoder", "decoder")
        for what, value in {
            "block_types": "ResBlock",
            "block_out_channels": (8,) * 4,
            "layers_per_block": (1,) * 4,
            "qkv_multiscales": ((),) * 4,
        }.items()
    }
    return {
        "tokenizer": gemma_tokenizer(),
        "text_encoder": transformers.Gemma2Model(gemma),
        "vae": AutoencoderDC(latent_channels=4, attention_head_dim=4, **blocks),
        "transformer": SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
            num_layers=2, num_cross_attention_heads=4, cross_attention_head_dim=4,
            cross_attention_dim=16, caption_channels=12, qk_norm="rms_norm_across_heads",
            **settings,
        ),
        "scheduler": scheduler,
    }  # fmt: skip


def sana():
    from diffusers import DPMSolverMultistepScheduler, SanaPipeline

    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return SanaPipeline(**sana_parts(scheduler))


def sana_sprint():
    from diffusers import SanaSprintPipeline, SCMScheduler

    return SanaSprintPipeline(**sana_parts(SCMScheduler(), guidance_embeds=True))


def hunyuandit():
    from diffusers import DDPMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline

    bert = transformers.BertConfig(
        vocab_size=128, hidden_size=12, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=77,
    )  # fmt: skip
    return HunyuanDiTPipeline(
        vae=kl(),
        text_encoder=transformers.BertModel(bert),
        tokenizer=bert_tokenizer(),
        text_encoder_2=t5_encoder(16),
        tokenizer_2=t5_tokenizer(),
        transformer=HunyuanDiT2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, patch_size=2,
            sample_size=8, hidden_size=16, num_layers=2, cross_attention_dim=12,
            cross_attention_dim_t5=16, pooled_projection_dim=8, text_len=77, text_len_t5=256,
        ),
        scheduler=DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def sd3(*, with_t5=True):
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    return StableDiffusion3Pipeline(
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        text_encoder=clip_encoder(8, projected=True),
        text_encoder_2=clip_encoder(8, projected=True),
        tokenizer_3=t5_tokenizer() if with_t5 else None,
        text_encoder_3=t5_encoder(24) if with_t5 else None,
        vae=kl(shift=0.1),
        transformer=SD3Transformer2DModel(
            in_channels=4, out_channels=4, sample_size=8, num_attention_heads=2,
            attention_head_dim=8, num_layers=2, joint_attention_dim=24,
            caption_projection_dim=16, pooled_projection_dim=16, pos_embed_max_size=8,
            dual_attention_layers=(0,), qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def flux():
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    return FluxPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip_encoder(8, projected=False),
        tokenizer_2=t5_tokenizer(),
        text_encoder_2=t5_encoder(12),
        vae=kl(shift=0.1),
        transformer=FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, num_attention_heads=2,
            attention_head_dim=8, joint_attention_dim=12, pooled_projection_dim=8,
            axes_dims_rope=(2, 2, 4), guidance_embeds=True,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )  # fmt: skip


def sd3_without_t5():
    return sd3(with_t5=False)


MAKERS = (pixart, sana, sana_sprint, hunyuandit, sd3, sd3_without_t5, flux)
FAMILIES = {make.__name__: make for make in MAKERS}


def liven(model):
    """Weights of the same size everywhere: through zeros and tiny spreads nothing is seen."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "norm" not in name:
            spread = weight.flatten(1).shape[1] ** -0.5
            weight.data = spread * torch.randn(weight.shape, generator=generator)
    return model


def save_model(model, folder):
    liven(model).save_pretrained(folder)


def save(pipe, folder):
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            liven(part)
    pipe.save_pretrained(folder)


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """From the name of a family to the folder of its tiny pipeline."""
    root = tmp_path_factory.mktemp("pipelines")

    def folder_of(name):
        folder = root / name
        if not folder.exists():
            save(FAMILIES[name](), folder)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def save_vae():
    """Saves a tiny VAE into a folder; see `kl`."""
    return lambda folder, **made: save_model(kl(**made), folder)


@pytest.fixture(scope="session")
def captions():
    """Text, and its words by role; blanks in front and a capital, since some pipelines cut them."""
    return (
        (
            "  a Red square above a circle",
            {"colour1": "Red", "shape1": "square", "relation": "above", "shape2": "circle"},
        ),
        (
            "a blue circle left of a square",
            {"colour1": "blue", "shape1": "circle", "relation": "left of", "shape2": "square"},
        ),
    )


@pytest.fixture(scope="session")
def prompts(captions, tmp_path_factory):
    """The captions as a file."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [
        {"text": text, "roles": {role: [words] for role, words in marks.items()}}
        for text, marks in captions
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path
