"""The tiny PixArt pipeline of `models.py`, as every environment loads it, and sums over its maps.

Imports torch and diffusers only: a peer's environment has nothing of ours.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor

PIPELINE: Final = "pipeline"
"""Folder of the pipeline in a folder of work."""
INPUTS: Final = "inputs.pt"
REFERENCE: Final = "reference.pt"
TOP: Final = 10
GUIDANCE: Final = 4.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The sizes of the pipeline and of one sampling with it."""

    layers: int = 6
    heads: int = 6
    head_channels: int = 64
    side: int = 16
    """Image tokens along each side."""
    samples: int = 8
    """At most one for each relation."""
    steps: int = 14
    text_tokens: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A pipeline and what it is asked to paint."""

    folder: Path
    pipe: Any
    size: Size
    captions: list[str]
    tensors: dict[str, Tensor]
    """By sample: arguments of the pipeline, its initial noise among them."""
    roles: Tensor
    """Gamma [sample, text token, role], of both branches."""
    relation: Tensor
    """[sample, text token], 1 on the words of the relation."""
    target: Tensor
    """[sample, xy]: u / kappa(u) of the relation asked for, as in `attnsearch.metrics`."""
    positions: Tensor
    """[image token, xy] in [-1, 1]."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `_models_own.make_work` left in a folder."""
        from diffusers import PixArtAlphaPipeline

        absent = {"tokenizer": None, "text_encoder": None, "vae": None}
        pipe: Any = PixArtAlphaPipeline.from_pretrained(folder / PIPELINE, **absent)
        pipe.set_progress_bar_config(disable=True)
        stored = torch.load(folder / INPUTS)
        return cls(folder=folder, pipe=pipe, size=Size(**stored.pop("size")), **stored)

    def arguments(self, steps: int, rows: slice = slice(None)) -> dict[str, Any]:
        """Keyword arguments of a call that paints some of the samples."""
        pixels = self.size.side * 16  # two latent pixels a token, eight pixels a latent one
        return {
            **{name: tensor[rows] for name, tensor in self.tensors.items()},
            "negative_prompt": None,
            "num_inference_steps": steps,
            "guidance_scale": GUIDANCE,
            "height": pixels,
            "width": pixels,
            "use_resolution_binning": False,
            "output_type": "latent",
        }

    def paint(self, steps: int, rows: slice = slice(None)) -> Tensor:
        """Latents [sample, channel, y, x]."""
        return self.pipe(**self.arguments(steps, rows)).images

    def attention(self) -> list[Any]:
        """The cross-attention modules, by layer."""
        return [block.attn2 for block in self.pipe.transformer.transformer_blocks]


class KeepingProcessor:
    """Diffusers' `AttnProcessor` with a line that keeps the map: what everyone writes."""

    def __init__(self, keep: Callable[[Tensor], None]) -> None:
        self._keep = keep

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """The output of the attention module, its map [row, head, query, key] being kept."""
        rows = len(hidden_states)
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mask = attn.prepare_attention_mask(attention_mask, source.shape[1], rows)
        query, key, value = (
            attn.head_to_batch_dim(projected)
            for projected in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        )
        attention = attn.get_attention_scores(query, key, mask)
        self._keep(attention.unflatten(0, (rows, -1)).detach().cpu())
        output = attn.batch_to_head_dim(torch.bmm(attention, value))
        return attn.to_out[1](attn.to_out[0](output)) / attn.rescale_output_factor


class ExactProcessor:
    """Attention as diffusers computes it, and beside it its map in float64."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self._see = see
        self._plain = AttnProcessor2_0()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **settings: Any,
    ) -> Tensor:
        """The output of the attention module; its map [row, head, query, key] is shown."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = (
            projected.double().unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(source))
        )
        logits = query @ key.mT * attn.scale
        if attention_mask is not None:  # [row, 1, key], added to the logits
            logits = logits + attention_mask.double()[:, None]
        self._see(logits.softmax(-1))
        return self._plain(attn, hidden_states, encoder_hidden_states, attention_mask, **settings)


class Sums:
    """What is asked of maps, summed up map by map in the order of steps, then layers."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._masses: list[Tensor] = []
        self._dipoles: list[Tensor] = []

    def add_mass(self, attention: Tensor) -> None:
        """Sums a map [row, head, query, key] over roles, exactly."""
        roles = self._work.roles.double().repeat(2, 1, 1)
        self._masses.append(attention.double().mean(2) @ roles)

    def add_dipole(self, attention: Tensor) -> None:
        """Sums the attention of a map's conditional rows to the relation, in the map's type."""
        work = self._work
        relation = work.relation.to(attention.dtype)[:, None, :, None]
        seen = (attention[work.size.samples :] @ relation).squeeze(-1)
        self._dipoles.append(seen @ work.positions.to(attention.dtype))

    def add(self, attention: Tensor) -> None:
        """Both."""
        self.add_mass(attention)
        self.add_dipole(attention)

    def masses(self) -> Tensor:
        """[step, layer, row, head, role] float64, mean over image tokens of A Gamma."""
        return self._by_step(self._masses)

    def scores(self) -> Tensor:
        """[layer, head]: mean over steps and samples of <D - mean D, target>, D the dipole."""
        dipoles = self._by_step(self._dipoles)
        target = self._work.target.to(dipoles.dtype)
        return torch.einsum("tlshc,sc->lh", dipoles - dipoles.mean(2, keepdim=True), target) / (
            len(dipoles) * len(target)
        )

    def _by_step(self, by_call: list[Tensor]) -> Tensor:
        return torch.stack(by_call).unflatten(0, (-1, self._work.size.layers))


def masses_of(maps: Iterable[Tensor], work: Work) -> Tensor:
    """`Sums.masses` of maps."""
    sums = Sums(work)
    for attention in maps:
        sums.add_mass(attention)
    return sums.masses()


def scores_of(maps: Iterable[Tensor], work: Work) -> Tensor:
    """`Sums.scores` of maps."""
    sums = Sums(work)
    for attention in maps:
        sums.add_dipole(attention)
    return sums.scores()


def top_heads(scores: Tensor) -> list[str]:
    """Addresses of the heads with the largest scores in size."""
    order = scores.abs().flatten().argsort(descending=True, stable=True)[:TOP].tolist()
    return [f"L{index // scores.shape[1]}H{index % scores.shape[1]}" for index in order]
