"""A bottleneck, and the module that puts one behind a part of a model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.targets.modules import Wrapper

Activation = Callable[[Tensor], Tensor]


class Bottleneck(nn.Module):
    """A small feed-forward network: W_up act(W_down x + b_down) + b_up.

    The identity beside it (its skip connection) is left to the caller. Weights start from a
    normal distribution of standard deviation 0.01 that is cut at two of them, biases at zero:
    with the skip connection it is nearly the identity (Houlsby et al. 2019, arXiv 1902.00751).

    Args:
        features: H, of inputs and outputs.
        size: m, of the bottleneck.
    """

    def __init__(
        self, features: int, size: int, activation: Activation, *, device: torch.device
    ) -> None:
        super().__init__()
        self.down = nn.Linear(features, size, device=device, dtype=torch.float32)
        self.up = nn.Linear(size, features, device=device, dtype=torch.float32)
        self.activation = activation
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., features) to (..., features), in the type of the parameters."""
        hidden = self.activation(self.down(x.to(self.down.weight.dtype)))
        return self.up(hidden).to(x.dtype)  # type: ignore[no-any-return]


class WithBottleneck(Wrapper):
    """A part of a model with a bottleneck behind it: a(f) = f + bottleneck(f).

    Args:
        base: the part that puts out f, (..., features).
        bottleneck: what changes f.
    """

    def __init__(self, base: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.base, self.bottleneck = base, bottleneck

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the part, and change its output."""
        f: Tensor = self.base(*args, **kwargs)
        changed: Tensor = f + self.bottleneck(f)
        return changed
