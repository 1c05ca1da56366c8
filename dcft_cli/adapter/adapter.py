"""A trained increment of a weight."""

from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.acceleration.batched_factors import Factors, factors, shared_factors
from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.functional import increment, low_rank_factors
from dcft_cli.adapter.sizes import subspace_size
from dcft_cli.targets.weights import Matrix

INIT_STD = 0.02  # of A, B and C, as in the public implementation


class Sizes(TypedDict):
    """What `functional.increment` is told besides A, B and C."""

    stride: int
    scale: float
    out_features: int
    in_features: int


class DCFTAdapter(nn.Module):
    """A trained DCFT increment dW of a weight, or of some of its rows (Eq. 5).

    Args:
        name: of the layer, for listings and files.
        role: what the layer does in its model; for example "Q".
        config: kernel size, stride, rank, scale and initialisation.
        matrix: the weight.
        rows: first and last + 1 of the weight's rows that dW belongs to; None: all.

    Attributes:
        A: (rank, p), B: (q, rank), C: (kernel_size, kernel_size); float32 and trained,
            with p and q from `subspace_size` of in and out. For a stack of weights each has one
            more dimension in front.
    """

    def __init__(
        self,
        name: str,
        role: str,
        config: DCFTConfig,
        matrix: Matrix,
        rows: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.role = role
        self.config = config
        self.matrix = matrix
        self.rows = rows
        self.out_features = matrix.out_features if rows is None else rows[1] - rows[0]
        self.in_features = matrix.in_features
        d, s, k = config.kernel_size, config.window_step, config.rank
        stack = () if matrix.count is None else (matrix.count,)
        self.A, self.B, self.C = (
            nn.Parameter(torch.empty(*stack, *shape, device=matrix.parameter.device))
            for shape in (
                (k, subspace_size(self.in_features, d, s)),
                (subspace_size(self.out_features, d, s), k),
                (d, d),
            )
        )
        self.sizes = Sizes(
            stride=s,
            scale=config.scale,
            out_features=self.out_features,
            in_features=self.in_features,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws A, B and C anew from torch's global random state."""
        if self.config.init == "normal":
            for parameter in (self.A, self.B, self.C):
                nn.init.normal_(parameter, std=INIT_STD)
        else:
            for factor in (self.A, self.B):
                for one in factor.detach().view(-1, *factor.shape[-2:]):
                    nn.init.orthogonal_(one)
            nn.init.zeros_(self.C)

    def increment(self) -> Tensor:
        """dW (..., out, in) of the adapted rows, in float32."""
        return increment(self.A, self.B, self.C, **self.sizes)

    def forward(self) -> tuple[Tensor, Tensor]:
        """`low_rank_factors`: what brings parameters for a module's call (offloading) is called."""
        return self.low_rank_factors()

    def low_rank_factors(self) -> tuple[Tensor, Tensor]:
        """A' (..., k d, in) and B' (..., out, k d) of the whole weight: dW = B' A'."""
        down, up = low_rank_factors(self.A, self.B, self.C, **self.sizes)
        return down, self._among_all_rows(up)

    def factors(self, dtype: torch.dtype) -> Factors:
        """A' and B' of the adapted rows for one call of the layer."""
        return shared_factors(self, dtype) or factors([self], dtype)[0]

    def whole_increment(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """dW of the whole weight (..., out, in), computed in `dtype`."""
        A, B, C = (factor.to(dtype) for factor in (self.A, self.B, self.C))
        return self._among_all_rows(increment(A, B, C, **self.sizes))

    def _among_all_rows(self, tensor: Tensor) -> Tensor:
        if self.rows is None:
            return tensor
        first, end = self.rows
        return F.pad(tensor, (0, 0, first, self.matrix.out_features - end))

    def extra_repr(self) -> str:
        """Settings for `print(model)`."""
        c = self.config
        return (
            f"role={self.role}, kernel_size={c.kernel_size}, stride={c.window_step}, "
            f"rank={c.rank}, scale={c.scale}"
        )
