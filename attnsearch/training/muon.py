"""The Muon optimiser in float32.

`torch.optim.Muon` orthogonalises in bfloat16, which CPUs without bfloat16 arithmetic emulate at a
fraction of their speed; the update rule here is the same.
"""

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor
from torch.optim import Optimizer

_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5


class Muon(Optimizer):
    """Momentum whose update matrix is replaced by the nearest semi-orthogonal one.

    For hidden weight matrices only. Nesterov momentum; the update is scaled by
    sqrt(max(1, rows / columns)), so that one learning rate serves all shapes.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nothing here re-evaluates
        """Update every matrix from its gradient."""
        # All of one shape at once: starting work on one small matrix takes a GPU longer than
        # doing it.
        for group in self.param_groups:
            moved = [each for each in group["params"] if each.grad is not None]
            for shape in dict.fromkeys(each.shape for each in moved):
                alike = [each for each in moved if each.shape == shape]
                self._update(alike, group["lr"], group["momentum"])

    def _update(self, parameters: list[Tensor], rate: float, momentum: float) -> None:
        gradients = [each.grad for each in parameters if each.grad is not None]
        buffers = [
            self.state[each].setdefault("momentum", torch.zeros_like(each)) for each in parameters
        ]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        nesterov = torch._foreach_lerp(gradients, buffers, momentum)
        updates = orthogonalise(torch.stack(list(nesterov)))
        rows, columns = parameters[0].shape
        gain = max(1.0, rows / columns) ** 0.5
        torch._foreach_add_(parameters, list(updates.unbind()), alpha=-rate * gain)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Singular values of [..., rows, columns] pushed to about 1 (0.7 to 1.2), directions kept.

    Newton-Schulz iteration with Keller Jordan's quintic coefficients.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
