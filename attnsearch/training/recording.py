"""Forward and backward of a batch, recorded once as a CUDA graph.

A small model's step is some hundreds of kernels that each take a GPU less time than Python takes to
launch them; a recorded step is one launch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Backward = Callable[..., Tensor]
"""From a batch to its loss, the gradients left on the parameters."""

_WARM_UPS = 3


class RecordedBackward:
    """Replays `backward` on batches of one shape; the parameters' gradients are overwritten.

    `backward` must do all its work on the parameters' CUDA device without ever waiting for it, and
    the gradients may not be set to None in between: the recording holds their memory.
    """

    def __init__(self, backward: Backward, model: nn.Module, example: Sequence[Tensor]) -> None:
        self._batch = [each.clone() for each in example]
        self._graph = torch.cuda.CUDAGraph()
        # Libraries and the autograd engine set themselves up on first use, which is no recording.
        with torch.cuda.stream(warm_up := torch.cuda.Stream()):
            warm_up.wait_stream(torch.cuda.default_stream())
            for _ in range(_WARM_UPS):
                model.zero_grad(set_to_none=True)
                backward(*self._batch)
        torch.cuda.current_stream().wait_stream(warm_up)
        model.zero_grad(set_to_none=True)
        with torch.cuda.graph(self._graph):
            self._loss = backward(*self._batch)

    def __call__(self, *batch: Tensor) -> Tensor:
        """The loss of a batch; its tensors may lie on any device."""
        for held, given in zip(self._batch, batch, strict=True):
            held.copy_(given)
        self._graph.replay()
        return self._loss
