"""Models in the original PixArt-alpha format, random and small or empty and large."""

import numpy as np
import pytest
import torch


def _positions(grid, width, scale=1.0):
    """The buffer of the original code, [1, token, width], from its description."""
    frequency = 1 / 10000 ** (np.arange(width // 4) / (width / 4))
    rows = []
    for y in range(grid):
        for x in range(grid):
            column, row = x / scale * frequency, y / scale * frequency
            rows.append([np.sin(column), np.cos(column), np.sin(row), np.cos(row)])
    return torch.tensor(np.array(rows).reshape(1, grid**2, width)).float()


def _shapes(depth, width, text_channels, text_length, *, hidden, channels, patch, outputs):
    """Name to shape of every tensor but the positions, in the original format."""
    linears = {
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "t_block.1": (6 * width, width),
        "y_embedder.y_proj.fc1": (width, text_channels),
        "y_embedder.y_proj.fc2": (width, width),
        "final_layer.linear": (outputs * patch**2, width),
    }
    table = {
        "x_embedder.proj.weight": (width, channels, patch, patch),
        "x_embedder.proj.bias": (width,),
        "y_embedder.y_embedding": (text_length, text_channels),
        "final_layer.scale_shift_table": (2, width),
    }
    for layer in range(depth):
        block = f"blocks.{layer}"
        table[f"{block}.scale_shift_table"] = (6, width)
        linears |= {
            f"{block}.attn.qkv": (3 * width, width),
            f"{block}.attn.proj": (width, width),
            f"{block}.cross_attn.q_linear": (width, width),
            f"{block}.cross_attn.kv_linear": (2 * width, width),
            f"{block}.cross_attn.proj": (width, width),
            f"{block}.mlp.fc1": (hidden, width),
            f"{block}.mlp.fc2": (width, hidden),
        }
    for name, shape in linears.items():
        table[f"{name}.weight"] = shape
        table[f"{name}.bias"] = shape[:1]
    return table


def _original(
    depth=2,
    width=64,
    grid=8,
    *,
    text_channels=32,
    text_length=20,
    hidden=None,
    channels=4,
    patch=2,
    outputs=8,
    scale=1.0,
    seed=0,
):
    """A state dict of the original format with random weights everywhere."""
    generator = torch.Generator().manual_seed(seed)
    table = _shapes(
        depth, width, text_channels, text_length,
        hidden=hidden or 4 * width, channels=channels, patch=patch, outputs=outputs,
    )  # fmt: skip
    weights = {
        name: torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        for name, shape in table.items()
    }
    return {"pos_embed": _positions(grid, width, scale)} | weights


def _empty(depth, width, grid, text_length=20):
    """A state dict of that size that takes no memory, but for its positions."""
    table = _shapes(
        depth, width, 4096, text_length, hidden=4 * width, channels=4, patch=2, outputs=8
    )
    zero = torch.zeros(())
    return {"pos_embed": _positions(grid, width)} | {k: zero.expand(s) for k, s in table.items()}


@pytest.fixture(scope="session")
def pixart_positions():
    """See `_positions`."""
    return _positions


@pytest.fixture(scope="session")
def pixart_weights():
    """See `_original`."""
    return _original


@pytest.fixture(scope="session")
def empty_pixart():
    """See `_empty`."""
    return _empty
