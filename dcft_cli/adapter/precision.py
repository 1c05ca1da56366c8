"""Mixed precision: where it is off, and what it casts to."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context without mixed precision on a tensor's device."""
    # The meta device knows no autocast.
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return the type that autocast casts products to; None where it is off, or unknown (meta)."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)
