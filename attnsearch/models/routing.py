"""The cross-attention of our own DiT, led through a function while images are sampled."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor

from attnsearch.axes import Site
from attnsearch.errors import ConfigError
from attnsearch.models.attention import AttentionCall, plain_attention
from attnsearch.models.dit import DiT


@contextmanager
def routed(model: DiT, attend: Callable[[AttentionCall, int], Tensor]) -> Iterator[None]:
    """Every cross-attention goes through `attend`, which is told the step, inside the block.

    Steps are counted from 0 on entering: a block is one batch of images. The model is restored on
    leaving, also by an exception.

    Raises:
        ConfigError: its attention is already routed.
    """
    modules = model.attention_modules(Site.CROSS)
    if any(module.attend is not plain_attention for module in modules):
        raise ConfigError(
            "the model's attention is already routed elsewhere; ablations do not nest"
        )
    step = -1

    def begin(*_: object) -> None:
        nonlocal step
        step += 1

    def attend_at(call: AttentionCall) -> Tensor:
        return attend(call, step)

    with ExitStack() as restore:
        restore.callback(model.register_forward_pre_hook(begin).remove)
        for module in modules:
            restore.callback(setattr, module, "attend", plain_attention)
            module.attend = attend_at
        yield
