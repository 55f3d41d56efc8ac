"""Tiny pipelines of diffusers, whole, with random weights in all of their parts."""

from types import SimpleNamespace

import pytest
import torch

WORDS = ("a", "the", "red", "blue", "square", "circle", "is", "above", "below", "left", "of")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A saved PixArt pipeline (cross attention) and a saved Flux pipeline (joint attention)."""
    root = tmp_path_factory.mktemp("pipelines")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, build in (("pixart", pixart), ("flux", flux)):
            build().save_pretrained(root / name)
    return SimpleNamespace(pixart=root / "pixart", flux=root / "flux")


@pytest.fixture
def load(folders):
    """From `pixart` or `flux` to a fresh pipeline."""
    from diffusers import DiffusionPipeline

    def loaded(name):
        pipe = DiffusionPipeline.from_pretrained(getattr(folders, name), local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return loaded


def pixart():
    import diffusers

    return diffusers.PixArtSigmaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(),
        vae=decoder(4),
        transformer=diffusers.PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            cross_attention_dim=16,
            caption_channels=12,
            sample_size=32,
            out_channels=8,
        ),
        scheduler=diffusers.DDPMScheduler(),
    )


def flux():
    import diffusers
    import transformers

    tokenizer = clip_tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        projection_dim=8,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return diffusers.FluxPipeline(
        tokenizer=tokenizer,
        text_encoder=transformers.CLIPTextModel(config),
        tokenizer_2=t5_tokenizer(),
        text_encoder_2=t5_encoder(),
        vae=decoder(1),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            joint_attention_dim=12,
            pooled_projection_dim=8,
            axes_dims_rope=(2, 2, 4),
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def t5_tokenizer():
    """Knows some words, and spells the others."""
    import transformers

    letters = [f"{blank}{letter}" for blank in ("▁", "") for letter in "abcdefghijklmnopqrstuvwxyz"]
    pieces = [("▁", -5.0), *((f"▁{word}", -2.0) for word in WORDS if len(word) > 1)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces]
    vocabulary += [(piece, -9.0) for piece in letters]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0)


def t5_encoder():
    import transformers

    config = transformers.T5Config(
        vocab_size=128, d_model=12, d_kv=6, d_ff=12, num_layers=1, num_heads=2
    )
    return transformers.T5EncoderModel(config).eval()


def clip_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = {piece: index for index, piece in enumerate(["<pad>", "<unk>", "<s>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=16,
    )


def decoder(latent_channels):
    """Eight pixels a cell, as everywhere."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=latent_channels,
        norm_num_groups=2,
        shift_factor=0.1,  # which Flux asks for
    ).eval()
