"""The names of devices: what a user types, and what a store records."""

import re
from typing import TYPE_CHECKING

from attnsearch.errors import ConfigError

if TYPE_CHECKING:
    import torch


def check_device(name: str) -> None:
    """Refuse what is the name of no device anywhere, without torch.

    Raises:
        ConfigError: it is none.
    """
    if not re.fullmatch(r"[a-z]+(:\d+)?", name):
        raise ConfigError(f"{name!r} is no device; it is auto, cpu, cuda or cuda:1")


def named_device(name: str) -> "torch.device":
    """The device of a name such as cpu or cuda:1; auto is a GPU where there is one.

    Raises:
        ConfigError: it does not exist here.
    """
    import torch  # seconds to import

    check_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here; try --device cpu") from error
    return device


def device_name(device: "torch.device") -> str:
    """What a store records as the hardware: the name of the GPU, or `cpu`."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
