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
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                buffer = state.setdefault("momentum", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(buffer, group["momentum"]))
                gain = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.add_(update, alpha=-group["lr"] * gain)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Singular values of [rows, columns] pushed to about 1 (0.7 to 1.2), directions kept.

    Newton-Schulz iteration with Keller Jordan's quintic coefficients.
    """
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
