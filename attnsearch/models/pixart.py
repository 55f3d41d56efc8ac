"""The original PixArt-alpha checkpoint format, in the terms of our DiT.

After github.com/PixArt-alpha/PixArt-alpha and the checkpoints of arXiv 2601.06338, which share
it. Only tensors are translated here: reading files, and what the tensors do not tell (the text
encoder, the task), belong to `checkpoint`. The variance half of the prediction, which no sampler
of ours asks for, is left out here and nowhere else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from math import atan2, isqrt
from typing import Any, Final

import torch
from torch import Tensor

from attnsearch.errors import CheckpointError, ConfigError
from attnsearch.intake import one_line
from attnsearch.models.dit import DiT, DiTConfig, position_embedding

_MARKS: Final = {"y_embedder.y_proj.fc1.weight", "blocks.0.cross_attn.kv_linear.weight"}
"""Tensors by either of which the format is known."""

_MICRO_CONDITIONS: Final = ("csize_embedder", "ar_embedder")
_PATCHES: Final = "x_embedder.proj.weight"
_POSITIONS: Final = "pos_embed"
_FINAL: Final = "final_layer.linear"
_XL_HEADS: Final = {1152: 16}
"""Heads by width where a head does not have 64 channels: PixArt-alpha XL."""

# One of their linear maps, and those of ours that its rows are cut into, in order.
_LINEARS: Final = {
    "x_embedder.proj": ("patch_embed",),
    "t_embedder.mlp.0": ("timestep_mlp.0",),
    "t_embedder.mlp.2": ("timestep_mlp.2",),
    "t_block.1": ("modulation",),
    "y_embedder.y_proj.fc1": ("caption_mlp.0",),
    "y_embedder.y_proj.fc2": ("caption_mlp.2",),
    _FINAL: ("final",),
}
_TABLES: Final = {
    "final_layer.scale_shift_table": "final_table",
    "y_embedder.y_embedding": "null_embedding",
}
_BLOCK_LINEARS: Final = {
    "attn.qkv": ("self_attention.query", "self_attention.key", "self_attention.value"),
    "attn.proj": ("self_attention.out",),
    "cross_attn.q_linear": ("cross_attention.query",),
    "cross_attn.kv_linear": ("cross_attention.key", "cross_attention.value"),
    "cross_attn.proj": ("cross_attention.out",),
    "mlp.fc1": ("mlp.0",),
    "mlp.fc2": ("mlp.2",),
}


def find_pixart(content: object) -> dict[str, Any] | None:
    """The PixArt weights in what a file holds, by their original names; None where there are none.

    They are looked for under `state_dict_ema`, then under `state_dict`, then in the content
    itself; a prefix `module.` is taken off.
    """
    if not isinstance(content, Mapping):
        return None
    for table in (content.get("state_dict_ema"), content.get("state_dict"), content):
        if isinstance(table, Mapping):
            named = {str(name).removeprefix("module."): value for name, value in table.items()}
            if not _MARKS.isdisjoint(named):
                return named
    return None


def infer_config(weights: Mapping[str, Any], heads: int | None = None) -> DiTConfig:
    """The sizes of a PixArt model, read off its tensors.

    The number of heads leaves no trace there: it is `heads`, by default 16 for a width of 1152
    (PixArt-alpha XL) and one per 64 channels otherwise.

    Raises:
        CheckpointError: a tensor is missing, of another kind, or of a variant we do not read.
        ConfigError: `heads` does not fit the width, or is needed and not given.
    """
    _refuse_micro_conditions(weights)
    width, channels, patch, _ = _shape(weights, _PATCHES, 4)
    hidden, _ = _shape(weights, "blocks.0.mlp.fc1.weight", 2)
    text_length, text_channels = _shape(weights, "y_embedder.y_embedding", 2)
    positions = _shape(weights, _POSITIONS, 3)
    grid = isqrt(positions[1])
    if positions != (1, grid**2, width):
        raise CheckpointError(
            f"{_POSITIONS} is {list(positions)}, not that of a square image of width {width}"
        )
    if heads is None:
        heads = _XL_HEADS.get(width, width // 64)
        if width not in _XL_HEADS and width % 64:
            raise ConfigError(
                f"the number of heads cannot be told from the file: its width of {width} is no "
                "multiple of 64; say how many it has"
            )
    config = DiTConfig(
        image_side=grid * patch,
        image_channels=channels,
        patch=patch,
        depth=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        width=width,
        heads=heads,
        mlp_ratio=hidden / width,
        text_channels=text_channels,
        text_length=text_length,
    )
    return replace(config, position_scale=_position_scale(weights[_POSITIONS][0], config))


def convert_pixart(
    weights: Mapping[str, Any], heads: int | None = None
) -> tuple[DiTConfig, dict[str, Tensor]]:
    """The sizes of a PixArt model, and its weights by the names of our DiT.

    The result predicts what the original predicts, without its variance half. The tensors are
    views of the given ones where those need no reordering. `heads` as in `infer_config`.

    Raises:
        CheckpointError: a tensor is missing, left over, of another shape, or not finite; or the
            model is of a variant we do not read.
        ConfigError: `heads` does not fit the width, or is needed and not given.
    """
    config = infer_config(weights, heads)
    with torch.device("meta"):
        fitting = DiT(config).state_dict()
    parts_of = dict(_parts(config.depth))
    stray = sorted(weights.keys() - parts_of.keys() - {_POSITIONS})
    if stray:
        raise CheckpointError(f"{one_line(stray[0], 200)} is no part of a PixArt-alpha model")
    converted: dict[str, Tensor] = {}
    for name, parts in parts_of.items():
        first = fitting[parts[0]].shape
        tensor = _fitted(weights, name, (len(parts) * first[0], *first[1:]), config)
        converted.update(zip(parts, tensor.chunk(len(parts)), strict=True))
    return config, converted


def _fitted(
    weights: Mapping[str, Any], name: str, shape: tuple[int, ...], config: DiTConfig
) -> Tensor:
    """One of their tensors with the shape and the order of ours."""
    tensor = _tensor(weights, name)
    expected = shape
    if name == _PATCHES:
        tensor = tensor.flatten(1)  # a convolution by whole patches, [width, channel, y, x]
    if name.startswith(_FINAL) and _predicts_variance(weights, config):
        expected = (2 * shape[0], *shape[1:])
    if tensor.shape != expected:
        raise CheckpointError(
            f"{name} is {list(tensor.shape)}, not {list(expected)} as in a model of this size"
        )
    if not tensor.float().isfinite().all():
        raise CheckpointError(f"{name} holds NaN or infinity")
    return _reorder_prediction(tensor, config) if name.startswith(_FINAL) else tensor


def _parts(depth: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every tensor of theirs but the positions, and those of ours that it is cut into."""
    linears: dict[str, tuple[str, ...]] = dict(_LINEARS)
    for name, part in _TABLES.items():
        yield name, (part,)
    for layer in range(depth):
        block = f"blocks.{layer}."
        yield f"{block}scale_shift_table", (f"{block}table",)
        for name, parts in _BLOCK_LINEARS.items():
            linears[block + name] = tuple(block + part for part in parts)
    for name, parts in linears.items():
        for kind in ("weight", "bias"):
            yield f"{name}.{kind}", tuple(f"{part}.{kind}" for part in parts)


def _refuse_micro_conditions(weights: Mapping[str, Any]) -> None:
    found = [name for name in _MICRO_CONDITIONS if any(key.startswith(name) for key in weights)]
    if found:
        raise CheckpointError(
            f"it is also conditioned on the size and the aspect ratio of the image "
            f"({' and '.join(found)}), as PixArt-alpha at 1024 pixels is; attnsearch reads "
            "models without these conditions only"
        )


def _predicts_variance(weights: Mapping[str, Any], config: DiTConfig) -> bool:
    rows, _ = _shape(weights, f"{_FINAL}.weight", 2)
    image_rows = config.image_channels * config.patch**2
    if rows not in (image_rows, 2 * image_rows):
        raise CheckpointError(
            f"{_FINAL}.weight has {rows} rows; {image_rows} would predict the noise, "
            f"{2 * image_rows} the noise and its variance"
        )
    return rows == 2 * image_rows


def _reorder_prediction(tensor: Tensor, config: DiTConfig) -> Tensor:
    """Rows in the order (y, x, channel) as (channel, y, x), without those of the variance."""
    cells = tensor.unflatten(0, (config.patch, config.patch, -1))
    return cells[:, :, : config.image_channels].movedim(2, 0).flatten(0, 2)


def _position_scale(positions: Tensor, config: DiTConfig) -> float:
    """The scale at which `position_embedding` gives these positions [token, width].

    The second token lies at the coordinate 1 / scale, whose sine and cosine are its first two
    frequencies of 1. Scales are ratios of small numbers, which brings back the exact one.
    """
    if config.grid == 1:
        return 1.0
    angle = atan2(float(positions[1, 0]), float(positions[1, config.width // 4]))
    if angle > 1e-3:
        scale = float(Fraction(1 / angle).limit_denominator(16))
        tolerance = max(1e-5, torch.finfo(positions.dtype).eps)
        ours = position_embedding(config.grid, config.width, scale)
        if torch.allclose(positions.float(), ours, rtol=0, atol=tolerance):
            return scale
    raise CheckpointError(
        f"{_POSITIONS} is not the sinusoid of a {config.grid} x {config.grid} grid at any scale; "
        "attnsearch has no other positions"
    )


def _shape(weights: Mapping[str, Any], name: str, axes: int) -> tuple[int, ...]:
    shape = _tensor(weights, name).shape
    if len(shape) != axes or not all(shape):
        raise CheckpointError(f"{name} is {list(shape)}; it should have {axes} axes, none empty")
    return tuple(shape)


def _tensor(weights: Mapping[str, Any], name: str) -> Tensor:
    tensor = weights.get(name)
    if tensor is None:
        raise CheckpointError(f"it has no {name}")
    if (
        not isinstance(tensor, Tensor)
        or not tensor.is_floating_point()
        or tensor.layout is not torch.strided
    ):
        raise CheckpointError(f"{name} is not a plain tensor of real numbers")
    return tensor
