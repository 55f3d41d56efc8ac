"""Diffusion transformers and their checkpoints; knows nothing of scans or stores."""

from attnsearch.models.attention import Attention, AttentionCall, BranchRows, plain_attention
from attnsearch.models.checkpoint import (
    Checkpoint,
    Objective,
    PixArtFile,
    checkpoint_of,
    describe_checkpoint,
    load_checkpoint,
    load_pixart,
    save_checkpoint,
)
from attnsearch.models.dit import SIZES, DiT, DiTConfig, DiTSize
from attnsearch.models.origin import Origin
from attnsearch.models.vae import Vae

__all__ = [
    "SIZES",
    "Attention",
    "AttentionCall",
    "BranchRows",
    "Checkpoint",
    "DiT",
    "DiTConfig",
    "DiTSize",
    "Objective",
    "Origin",
    "PixArtFile",
    "Vae",
    "checkpoint_of",
    "describe_checkpoint",
    "load_checkpoint",
    "load_pixart",
    "plain_attention",
    "save_checkpoint",
]
