"""The names of devices: what a user types, and what a store records."""

import torch

from attnsearch.errors import ConfigError


def named_device(name: str) -> torch.device:
    """The device of a name such as cpu or cuda:1; auto is a GPU where there is one.

    Raises:
        ConfigError: it does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here; try --device cpu") from error
    return device


def device_name(device: torch.device) -> str:
    """What a store records as the hardware: the name of the GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
