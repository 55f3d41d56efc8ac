"""How much of the logits of real images their QK maps explain.

A QK map is made of positions alone (`qk`). Here images are sampled, and the true pre-softmax logits
L [prompt, image token] of the relation words, mean over their tokens, are compared with the map Phi
of the same prompt, both less their mean over image tokens:

    explained = 1 - sum (L - Phi)^2 / sum L^2

over prompts and image tokens. 1: the map is all there is; 0: no better than a flat map; negative:
worse. There is no factor that is fitted.
"""

import torch
from torch import Tensor

from attnsearch import encoders
from attnsearch.axes import ROLES, Branch
from attnsearch.circuits.qk import Floats
from attnsearch.circuits.reader import CircuitModel
from attnsearch.models import Checkpoint
from attnsearch.models.attention import AttentionCall, plain_attention
from attnsearch.models.families import route
from attnsearch.models.guidance import Conditioning
from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample
from attnsearch.task.captions import some_captions


def position_share(
    checkpoint: Checkpoint, *, images: int, sampler: SamplerConfig, device: torch.device
) -> Floats:
    """The share explained by position, [step, layer, head], in the conditional branch.

    Samples one image of each of `some_captions`, so many of them.
    """
    model = checkpoint.build().to(device)
    layers = CircuitModel(model).layers
    chosen = some_captions(checkpoint.task, images)
    text = encoders.build(checkpoint.encoder).encode(chosen)
    words = text.roles[:, :, ROLES.index("relation")].to(device)
    weight = words / words.sum(1, keepdim=True)
    depth, heads = checkpoint.model.depth, checkpoint.model.heads
    error = torch.zeros(sampler.steps, depth, heads, dtype=torch.float64)
    size = torch.zeros_like(error)

    def attend(call: AttentionCall) -> Tensor:
        (rows,) = (rows for branch, rows in call.branches if branch is Branch.COND)
        key = torch.einsum("nt,nhtc->nhc", weight, call.key[rows]) * call.scale
        logits = torch.einsum("nhpc,nhc->nhp", call.query[rows], key)
        position = layers[call.layer].queries(model.position)
        phi = torch.einsum("hpc,nhc->nhp", position, key)
        logits, phi = (each - each.mean(-1, keepdim=True) for each in (logits, phi))
        error[call.step, call.layer] += (logits - phi).double().square().sum((0, 2)).cpu()
        size[call.step, call.layer] += logits.double().square().sum((0, 2)).cpu()
        return plain_attention(call)

    noise = noise_of_seeds([0] * len(chosen), model).to(device)
    conditioning = Conditioning.from_text(text, device)
    with route(model, attend):
        sample(model, checkpoint.objective, conditioning, noise, sampler)
    return (1 - error / size.clamp(min=torch.finfo(size.dtype).tiny)).numpy()
