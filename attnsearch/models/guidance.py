"""Classifier-free guidance: the one place that knows how branches are laid out in a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from attnsearch.axes import Branch
from attnsearch.encoders import EncodedText
from attnsearch.models.attention import BranchRows
from attnsearch.models.dit import DiT


class Conditioning(NamedTuple):
    """What a batch of samples is asked to show."""

    text: Tensor
    """[sample, token, channel] token embeddings."""
    text_mask: Tensor
    """[sample, token] bool, False on padding."""

    @classmethod
    def from_text(cls, text: EncodedText, device: torch.device) -> "Conditioning":
        """The conditioning of encoded captions, on a device."""
        return cls(text.embedding.to(device), text.mask.to(device))


def branches_of(guidance: float) -> tuple[Branch, ...]:
    """The branches a guidance weight evaluates; a weight of 1 needs no unconditional one."""
    return (Branch.COND,) if guidance == 1 else (Branch.UNCOND, Branch.COND)


def guided_prediction(
    model: DiT, image: Tensor, timestep: float, conditioning: Conditioning, guidance: float
) -> Tensor:
    """Uncond + guidance (cond - uncond), [sample, channel, y, x], in one forward pass.

    The unconditional branch reads the model's null embedding under the caption's own mask, which
    is what it was trained on.
    """
    samples = len(image)
    branches = branches_of(guidance)
    rows: BranchRows = tuple(
        (branch, slice(index * samples, (index + 1) * samples))
        for index, branch in enumerate(branches)
    )
    null = model.null_embedding.expand_as(conditioning.text)
    text = torch.cat([null if b is Branch.UNCOND else conditioning.text for b in branches])
    prediction = model(
        image.repeat(len(branches), 1, 1, 1),
        torch.full((len(text),), timestep, device=image.device),
        text,
        conditioning.text_mask.repeat(len(branches), 1),
        rows,
    )
    if len(branches) == 1:
        return prediction
    uncond, cond = prediction.chunk(2)
    return torch.lerp(uncond, cond, guidance)
