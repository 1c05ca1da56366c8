"""The module around a frozen linear layer."""

from typing import TypedDict

import torch
from torch import Tensor, nn

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.functional import factored_product, increment
from dcft_cli.adapter.sizes import subspace_size

INIT_STD = 0.02  # of A, B and C, as in the public implementation


class _Sizes(TypedDict):
    stride: int
    scale: float
    out_features: int
    in_features: int


class DCFTLinear(nn.Module):
    """A frozen linear layer plus a trained DCFT increment: y = W x + dW x + bias (Eq. 6).

    The wrapped layer is kept as it is in `base`, so that taking it out again is exact.

    Args:
        base: the frozen layer, weight (out, in).
        config: kernel size, stride, rank, scale and initialisation.
        role: what the layer does in its model, for listings; for example "Q".

    Attributes:
        A: (rank, p), B: (q, rank), C: (kernel_size, kernel_size); float32 and trained,
            with p and q from `subspace_size` of in and out.
    """

    def __init__(self, base: nn.Linear, config: DCFTConfig, role: str) -> None:
        super().__init__()
        self.base = base
        self.config = config
        self.role = role
        d, s, k = config.kernel_size, config.window_step, config.rank
        self.A, self.B, self.C = (
            nn.Parameter(torch.empty(*shape, device=base.weight.device, dtype=torch.float32))
            for shape in (
                (k, subspace_size(base.in_features, d, s)),
                (subspace_size(base.out_features, d, s), k),
                (d, d),
            )
        )
        self.sizes = _Sizes(
            stride=s,
            scale=config.scale,
            out_features=base.out_features,
            in_features=base.in_features,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws A, B and C anew from torch's global random state."""
        if self.config.init == "normal":
            for parameter in (self.A, self.B, self.C):
                nn.init.normal_(parameter, std=INIT_STD)
        else:
            nn.init.orthogonal_(self.A)
            nn.init.orthogonal_(self.B)
            nn.init.zeros_(self.C)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out). The increment is never formed: two thin products instead."""
        y: Tensor = self.base(x)
        return y + factored_product(x, self.A, self.B, self.C, **self.sizes)

    def increment(self) -> Tensor:
        """dW (out, in) in float32."""
        return increment(self.A, self.B, self.C, **self.sizes)

    @torch.no_grad()
    def fold(self) -> nn.Linear:
        """Adds dW to the wrapped layer's weight, in place, and returns that layer.

        The sum is taken in float64 and rounded once to the weight's own type.
        """
        A, B, C = (parameter.double() for parameter in (self.A, self.B, self.C))
        dW = increment(A, B, C, **self.sizes)
        self.base.weight.copy_(self.base.weight.double() + dW)
        return self.base

    @property
    def in_features(self) -> int:
        """Input size of the wrapped layer."""
        return self.base.in_features

    @property
    def out_features(self) -> int:
        """Output size of the wrapped layer."""
        return self.base.out_features

    @property
    def weight(self) -> Tensor:
        """The frozen weight (out, in), for models that look at its type or device."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base.bias

    def extra_repr(self) -> str:
        """Settings for `print(model)`."""
        c = self.config
        return (
            f"role={self.role}, kernel_size={c.kernel_size}, stride={c.window_step}, "
            f"rank={c.rank}, scale={c.scale}"
        )
