"""The PixArt-style diffusion transformer of arXiv 2601.06338.

What matters for its circuits: cross-attention reads the raw residual stream (no normalisation,
no modulation, no gate), positions of image tokens are a fixed 2-D sinusoid added once after the
patch embedding, and one caption MLP serves all layers. So `W_Q pos(p)` is an additive part of
every cross-attention logit.
"""

from dataclasses import dataclass
from math import log
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnsearch.axes import Branch, Site
from attnsearch.errors import ConfigError
from attnsearch.intake import check_fields
from attnsearch.models.attention import Attention, BranchRows

ALL_COND: Final[BranchRows] = ((Branch.COND, slice(None)),)
MAX_GRID: Final = 256
"""Image tokens along one side: of PixArt at 4096 pixels, whose positions fill 300 MB."""
MAX_NUMBERS: Final = 2**22
"""Numbers of one image: 1024 x 1024 with four channels, four times what PixArt paints latents of.
Evaluations and scans paint up to 64 at a time."""
_TIMESTEP_CHANNELS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """Sizes of a DiT.

    What follows from the weights (depth, widths) is bounded loosely here, since a checkpoint's
    have to fit; what takes memory and leaves no trace in them (the image, its tokens), closely.

    Raises:
        ConfigError: a size is of another type or out of bounds, or sizes do not divide.
    """

    image_side: int
    """Side of the square input, pixels (or latent cells)."""
    image_channels: int = 3
    patch: int = 4
    """Side of an image token, pixels."""
    depth: int
    """Number of blocks."""
    width: int
    """Channels of the residual stream."""
    heads: int
    mlp_ratio: float
    text_channels: int
    """Channels of the token embeddings it reads."""
    text_length: int
    """Tokens per caption, padding included."""
    position_scale: float = 1.0
    """Image tokens per unit of the position embedding's coordinate."""

    def __post_init__(self) -> None:
        check_fields(
            self, depth=1024, width=2**16, mlp_ratio=64, text_channels=2**16, text_length=2**12
        )
        if self.position_scale <= 0 or self.mlp_ratio <= 0:
            raise ConfigError(
                f"position_scale {self.position_scale} and mlp_ratio {self.mlp_ratio} must be "
                "positive"
            )
        for name in (
            "depth", "width", "heads", "patch", "image_side", "image_channels", "text_channels",
            "text_length",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.image_side % self.patch:
            raise ConfigError(f"patch {self.patch} does not divide image_side {self.image_side}")
        if self.width % self.heads or self.width % 4:
            raise ConfigError(
                f"width {self.width} must be a multiple of 4 and of the {self.heads} heads"
            )
        if self.grid > MAX_GRID:
            raise ConfigError(
                f"an image has at most {MAX_GRID} tokens along one side, not {self.grid}"
            )
        if self.image_channels * self.image_side**2 > MAX_NUMBERS:
            raise ConfigError(
                f"an image of {self.image_channels} x {self.image_side} x {self.image_side} "
                f"numbers is larger than {MAX_NUMBERS:,}"
            )

    @property
    def grid(self) -> int:
        """Image tokens along one side."""
        return self.image_side // self.patch


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTSize:
    """A named shape of the network, apart from what it reads and paints."""

    depth: int
    width: int
    heads: int
    mlp_ratio: float = 4.0


SIZES: Final[dict[str, DiTSize]] = {
    "B": DiTSize(depth=12, width=768, heads=12),
    "S": DiTSize(depth=12, width=384, heads=6),
    "mini": DiTSize(depth=6, width=384, heads=6),
    "micro": DiTSize(depth=6, width=192, heads=3),
    "nano": DiTSize(depth=3, width=192, heads=3),
    "pico": DiTSize(depth=5, width=128, heads=4, mlp_ratio=3.0),
    "femto": DiTSize(depth=4, width=96, heads=4, mlp_ratio=3.0),
    "atto": DiTSize(depth=4, width=64, heads=4, mlp_ratio=3.0),
}
"""B to nano are the paper's; pico, femto and atto (1.4, 0.6, 0.3 M parameters) train on a CPU."""


class DiT(nn.Module):
    """Predicts noise or velocity of an image from its noisy version, a timestep and a caption."""

    position: Tensor
    null_embedding: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        patch_size = config.image_channels * config.patch**2
        self.patch_embed = nn.Linear(patch_size, width)
        self.timestep_mlp = nn.Sequential(
            nn.Linear(_TIMESTEP_CHANNELS, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.modulation = nn.Linear(width, 6 * width)
        self.caption_mlp = nn.Sequential(
            nn.Linear(config.text_channels, width), nn.GELU("tanh"), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.final_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.final = nn.Linear(width, patch_size)
        position = position_embedding(config.grid, width, config.position_scale)
        self.register_buffer("position", position, persistent=False)
        self.register_buffer(
            "null_embedding",
            torch.randn(config.text_length, config.text_channels) / config.text_channels**0.5,
        )
        self._initialise()

    def forward(
        self,
        image: Tensor,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor,
        branches: BranchRows = ALL_COND,
    ) -> Tensor:
        """The prediction for a batch, [row, channel, y, x].

        `image` [row, channel, y, x]; `timestep` [row] in [0, 1000]; `text` [row, token, channel]
        token embeddings; `text_mask` [row, token] bool, False on padding; `branches` says which
        rows are conditional, for whoever listens to the attention calls.
        """
        time = self.timestep_mlp(timestep_embedding(timestep))
        modulation = self.modulation(F.silu(time)).unflatten(-1, (6, -1))
        source = self.caption_mlp(text)
        stream = self.patch_embed(self._to_patches(image)) + self.position
        for block in self.blocks:
            stream = block(stream, source, text_mask, modulation, branches)
        shift, scale = (self.final_table + time[:, None]).unsqueeze(2).unbind(1)
        normal = F.layer_norm(stream, stream.shape[-1:], eps=1e-6)
        return self._to_image(self.final(normal * (1 + scale) + shift))

    def attention_modules(self, site: Site) -> list[Attention]:
        """The attention modules of one site, by layer."""
        return [
            module
            for module in self.modules()
            if isinstance(module, Attention) and module.site is site
        ]

    def _to_patches(self, image: Tensor) -> Tensor:
        patch = self.config.patch
        cells = image.unflatten(2, (-1, patch)).unflatten(4, (-1, patch))
        return cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def _to_image(self, tokens: Tensor) -> Tensor:
        config = self.config
        cells = tokens.unflatten(1, (config.grid, config.grid))
        cells = cells.unflatten(3, (config.image_channels, config.patch, config.patch))
        return cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for mlp in (self.caption_mlp, self.timestep_mlp):
            for module in mlp:
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.modulation.weight, std=0.02)
        for attention in self.attention_modules(Site.CROSS):
            nn.init.zeros_(attention.out.weight)
        nn.init.zeros_(self.final.weight)


class Block(nn.Module):
    """Self-attention, cross-attention, MLP."""

    def __init__(self, config: DiTConfig, layer: int) -> None:
        super().__init__()
        width, hidden = config.width, round(config.width * config.mlp_ratio)
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)
        self.self_attention = Attention(width, config.heads, layer, Site.SELF)
        self.cross_attention = Attention(width, config.heads, layer, Site.CROSS)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width)
        )

    def forward(
        self,
        stream: Tensor,
        source: Tensor,
        text_mask: Tensor,
        modulation: Tensor,
        branches: BranchRows,
    ) -> Tensor:
        """One block on the residual stream [row, token, width]."""
        table = (self.table + modulation).unsqueeze(2)
        shift1, scale1, gate1, shift2, scale2, gate2 = table.unbind(1)
        width = stream.shape[-1:]
        normal = F.layer_norm(stream, width, eps=1e-6) * (1 + scale1) + shift1
        stream = stream + gate1 * self.self_attention(normal, normal, branches)
        stream = stream + self.cross_attention(stream, source, branches, text_mask)
        normal = F.layer_norm(stream, width, eps=1e-6) * (1 + scale2) + shift2
        return stream + gate2 * self.mlp(normal)


def timestep_embedding(timestep: Tensor) -> Tensor:
    """Sinusoid [row, 256] of a timestep in [0, 1000]: cosines, then sines."""
    half = _TIMESTEP_CHANNELS // 2
    exponent = torch.arange(half, device=timestep.device, dtype=torch.float32) / half
    angle = timestep.float()[:, None] * torch.exp(-log(10000) * exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def position_embedding(grid: int, width: int, scale: float = 1.0) -> Tensor:
    """Fixed 2-D positions [token, width] of a grid x grid image, row-major.

    The first half of the width encodes the column, the second the row; each half is a block of
    sines, then one of cosines, at 10000^(-k / (width / 4)) for the coordinates 0, 1, 2, ...
    divided by `scale`.
    """
    quarter = width // 4
    frequency = 10000 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(grid, dtype=torch.float64)[:, None] / scale * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=-1)
    column = axis[None, :, :].expand(grid, grid, -1)
    row = axis[:, None, :].expand(grid, grid, -1)
    return torch.cat([column, row], dim=-1).flatten(0, 1).float()
