"""How running out of memory shows."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # What torch says of the CPU's memory has no type of its own.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
