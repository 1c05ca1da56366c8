"""The two modules by which a model carries trained increments of a frozen weight."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.targets.modules import Wrapper
from dcft_cli.targets.weights import Matrix, linear_matrix

Kernel = Callable[["DCFTLinear", Tensor], Tensor]


def plain(layer: "DCFTLinear", x: Tensor) -> Tensor:
    """Compute W x + bias + dW x by two thin products (Eq. 6): the reference for other kernels."""
    y: Tensor = layer.base(x)
    for adapter in layer.adapters:
        down, up = adapter()  # (k d, in), (out, k d)
        y = y + F.linear(F.linear(x, down.to(x.dtype)), up.to(x.dtype))
    return y


class AdaptedWeight(nn.Module):
    """A frozen weight of a model and its adapters.

    Args:
        matrix: the weight.
        adapters: one of the whole weight, or one for each block of its rows.

    Attributes:
        merged: cached W + dW as the weight is stored, inside `with merged(model)`; else None.
    """

    def __init__(self, matrix: Matrix, adapters: Sequence[DCFTAdapter]) -> None:
        super().__init__()
        self.matrix = matrix
        self.adapters = nn.ModuleList(adapters)
        self.merged: Tensor | None = None

    def dcft_adapters(self) -> Iterator[DCFTAdapter]:
        """Iterate over the adapters."""
        return (adapter for adapter in self.adapters if isinstance(adapter, DCFTAdapter))

    def delta_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Compute dW of all adapters in `dtype`, in the shape that the weight is stored in."""
        delta, *others = [adapter.delta_weight(dtype) for adapter in self.dcft_adapters()]
        for other in others:
            delta = delta + other
        return self.matrix.as_stored(delta)

    def usable_merged(self, device: torch.device) -> Tensor | None:
        """Return the cached W + dW if this pass may use it: no gradients, no mixed precision."""
        if self.merged is None or torch.is_grad_enabled() or self.merged.device != device:
            return None
        return None if torch.is_autocast_enabled(device.type) else self.merged


class DCFTLinear(AdaptedWeight, Wrapper):
    """A frozen linear layer plus trained increments: y = W x + dW x + bias (Eq. 6).

    The wrapped layer is kept unchanged in `base`.

    Args:
        base: the layer.
        adapters: one of the whole weight, or one for each block of its rows.
        matrix: the layer's weight; None: found in `base`.

    Attributes:
        kernel: computes the output.
        linear: computes x W^T + bias with the cached W + dW. `acceleration.enable` replaces both.
    """

    kernel: Kernel = staticmethod(plain)
    linear: Callable[..., Tensor] = staticmethod(F.linear)

    def __init__(
        self, base: nn.Module, adapters: Sequence[DCFTAdapter], matrix: Matrix | None = None
    ) -> None:
        super().__init__(matrix or linear_matrix(base), adapters)
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if (merged := self.usable_merged(x.device)) is not None:
            return self.linear(x, self.matrix.as_matrix(merged), self.base.bias)
        return self.kernel(self, x)

    def only_multiplies(self) -> bool:
        """Return whether the layer is exactly W x + bias, frozen: a kernel may bypass `base`.

        Offloading replaces `forward` of modules that own parameters; hooks may do anything.
        """
        base = self.base
        return (
            (type(base) is nn.Linear or self.matrix.transposed)
            and not any(p.requires_grad for p in base.parameters())
            # Private: torch has no public function that tells whether there are hooks.
            and not (base._forward_hooks or base._forward_pre_hooks)
            and not any("forward" in vars(module) for module in (base, *self.adapters))
        )


class DCFTParametrization(AdaptedWeight):
    """W + dW each time the model's code reads the weight (torch.nn.utils.parametrize).

    For weights that belong to no linear layer, where there is no call to add thin products to.
    Forms dW, so that it costs memory and a gradient of the weight's size.
    """

    def forward(self, stored: Tensor) -> Tensor:
        """Add dW to the weight as it is stored; summed in float32, in the weight's type."""
        if (merged := self.usable_merged(stored.device)) is not None:
            return merged
        return (stored + self.delta_weight()).to(stored.dtype)
