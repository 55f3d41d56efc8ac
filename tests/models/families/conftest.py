"""Tiny transformers of the real diffusers classes, randomly initialised, saved and loaded again.

Every grid is 4 high and 6 wide, so that swapped axes are seen; there are always two rows.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

ROWS, HEIGHT, WIDTH, FRAMES = 2, 4, 6, 2
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A family's tiny model, a call of it, and what is to be seen in that call."""

    transformer: str
    config: dict
    inputs: dict
    layers: list[str]
    heads: int = 2
    grid: tuple = (HEIGHT, WIDTH)
    patch: int | None = 2
    """Side of a patch in the latent; None where latents arrive as a sequence."""
    text: dict = field(default_factory=lambda: {"encoder_hidden_states": 0})
    """Arguments that hold text tokens, and the column of their first among the text keys."""
    text_tokens: int = 5
    text_keys: slice | None = None
    mask: str | None = None


def pixart():
    return Case(
        transformer="PixArtTransformer2DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "cross_attention_dim": 16,
            "caption_channels": 12,
            "sample_size": 8,
        },
        inputs={
            "hidden_states": noise(ROWS, 4, 2 * HEIGHT, 2 * WIDTH),
            "encoder_hidden_states": noise(ROWS, 5, 12),
            "encoder_attention_mask": MASK,
            "timestep": torch.tensor([500, 500]),
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        },
        layers=["transformer_blocks.0.attn2", "transformer_blocks.1.attn2"],
        mask="encoder_attention_mask",
    )


def sana():
    return Case(
        transformer="SanaTransformer2DModel",
        config={
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "num_cross_attention_heads": 4,
            "cross_attention_head_dim": 4,
            "cross_attention_dim": 16,
            "caption_channels": 12,
            "qk_norm": "rms_norm_across_heads",
        },
        inputs={
            "hidden_states": noise(ROWS, 4, HEIGHT, WIDTH),
            "encoder_hidden_states": noise(ROWS, 5, 12),
            "encoder_attention_mask": MASK,
            "timestep": torch.tensor([500, 500]),
        },
        layers=["transformer_blocks.0.attn2", "transformer_blocks.1.attn2"],
        heads=4,
        patch=1,
        mask="encoder_attention_mask",
    )


def hunyuandit():
    from diffusers.models.embeddings import get_2d_rotary_pos_embed

    return Case(
        transformer="HunyuanDiT2DModel",
        config={
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 4,
            "patch_size": 2,
            "sample_size": 8,
            "hidden_size": 16,
            "num_layers": 2,
            "cross_attention_dim": 12,
            "cross_attention_dim_t5": 16,
            "pooled_projection_dim": 8,
            "text_len": 3,
            "text_len_t5": 4,
        },
        inputs={
            "hidden_states": noise(ROWS, 4, 2 * HEIGHT, 2 * WIDTH),
            "encoder_hidden_states": noise(ROWS, 3, 12),
            "text_embedding_mask": torch.ones(ROWS, 3),
            "encoder_hidden_states_t5": noise(ROWS, 4, 16),
            "text_embedding_mask_t5": torch.ones(ROWS, 4),
            "image_meta_size": torch.full((ROWS, 6), 64),
            "style": torch.zeros(ROWS, dtype=torch.long),
            "image_rotary_emb": get_2d_rotary_pos_embed(
                8, ((0, 0), (HEIGHT, WIDTH)), (HEIGHT, WIDTH), output_type="pt"
            ),
            "timestep": torch.tensor([500.0, 500.0]),
        },
        layers=["blocks.0.attn2", "blocks.1.attn2"],
        text={"encoder_hidden_states": 0, "encoder_hidden_states_t5": 3},
        text_tokens=7,
    )


def sd3():
    return Case(
        transformer="SD3Transformer2DModel",
        config={
            "in_channels": 4,
            "out_channels": 4,
            "sample_size": 8,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "joint_attention_dim": 12,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 8,
            "pos_embed_max_size": 12,
            "dual_attention_layers": (0,),
            "qk_norm": "rms_norm",
        },
        inputs={
            "hidden_states": noise(ROWS, 4, 2 * HEIGHT, 2 * WIDTH),
            "encoder_hidden_states": noise(ROWS, 5, 12),
            "pooled_projections": noise(ROWS, 8),
            "timestep": torch.tensor([500, 500]),
        },
        layers=["transformer_blocks.0.attn", "transformer_blocks.1.attn"],
        text_keys=slice(HEIGHT * WIDTH, None),
    )


def flux():
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
    return Case(
        transformer="FluxTransformer2DModel",
        config={
            "in_channels": 4,
            "num_layers": 2,
            "num_single_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "joint_attention_dim": 12,
            "pooled_projection_dim": 8,
            "axes_dims_rope": (2, 2, 4),
        },
        inputs={
            "hidden_states": noise(ROWS, HEIGHT * WIDTH, 4),
            "encoder_hidden_states": noise(ROWS, 5, 12),
            "pooled_projections": noise(ROWS, 8),
            "timestep": torch.tensor([0.5, 0.5]),
            "img_ids": places.float(),
            "txt_ids": torch.zeros(5, 3),
        },
        layers=[
            "transformer_blocks.0.attn",
            "transformer_blocks.1.attn",
            "single_transformer_blocks.0.attn",
        ],
        patch=None,
        text_keys=slice(0, 5),
    )


def wan():
    return Case(
        transformer="WanTransformer3DModel",
        config={
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 2,
            "text_dim": 12,
            "freq_dim": 8,
            "ffn_dim": 16,
            "rope_max_seq_len": 16,
        },
        inputs={
            "hidden_states": noise(ROWS, 4, FRAMES, 2 * HEIGHT, 2 * WIDTH),
            "encoder_hidden_states": noise(ROWS, 5, 12),
            "timestep": torch.tensor([500, 500]),
        },
        layers=["blocks.0.attn2", "blocks.1.attn2"],
        grid=(FRAMES, HEIGHT, WIDTH),
    )


def ltx():
    return Case(
        transformer="LTXVideoTransformer3DModel",
        config={
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 16,
            "num_layers": 2,
            "caption_channels": 12,
        },
        inputs={
            "hidden_states": noise(ROWS, FRAMES * HEIGHT * WIDTH, 4),
            "encoder_hidden_states": noise(ROWS, 5, 12),
            "encoder_attention_mask": MASK,
            "timestep": torch.tensor([500, 500]),
            "num_frames": FRAMES,
            "height": HEIGHT,
            "width": WIDTH,
        },
        layers=["transformer_blocks.0.attn2", "transformer_blocks.1.attn2"],
        grid=(FRAMES, HEIGHT, WIDTH),
        patch=None,
        mask="encoder_attention_mask",
    )


CASES = {case.__name__: case for case in (pixart, sana, hunyuandit, sd3, flux, wan, ltx)}


def loaded(cls, folder):
    """`cls.from_pretrained`, by hand for a class that cannot do without accelerate (Wan)."""
    if cls._keep_in_fp32_modules is None:
        return cls.from_pretrained(folder)
    transformer = cls.from_config(cls.load_config(folder))
    transformer.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return transformer


@pytest.fixture(scope="session")
def load(tmp_path_factory):
    """From the name of a case to the case and a fresh transformer, loaded from its folder."""
    import diffusers

    folders = {}

    def transformer_of(name):
        case = CASES[name]()
        cls = getattr(diffusers, case.transformer)
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                cls(**case.config).save_pretrained(folders[name])
        return SimpleNamespace(case=case, transformer=loaded(cls, folders[name]).eval())

    return transformer_of


@pytest.fixture
def case_names():
    return sorted(CASES)


@pytest.fixture(params=sorted(CASES))
def tiny(request, load):
    """Case and transformer of each family in turn."""
    return load(request.param)
