"""The trained part of DCFT: A, B and C of one increment dW."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.functional import ShapeAndScale, delta_weight, low_rank_factors
from dcft_cli.adapter.precision import full_precision
from dcft_cli.adapter.sizes import subspace_size
from dcft_cli.targets.resolve import Target

INIT_STD = 0.02  # of A, B and C, as in the public implementation


class DCFTAdapter(nn.Module):
    """A trained increment dW of a weight, or of a block of its rows (Eq. 5).

    Args:
        in_features, out_features: of the weight.
        config: kernel size, stride, rank, scale and initialization.
        rows: range [start, end) of the weight's rows that dW changes; None: all.
        count: number of weights in a stack (the experts of a layer); None: a single weight.
        device: of A, B and C.

    Attributes:
        A: (rank, p), B: (q, rank), C: (kernel_size, kernel_size); float32 and trained,
            p = subspace_size(in_features, d, s), q = subspace_size(number of rows, d, s). For a
            stack each has one more dimension in front.
        target: the weight in the model that `inject` made the adapter for.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        config: DCFTConfig,
        *,
        rows: tuple[int, int] | None = None,
        count: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.out_features = out_features
        self.rows = rows or (0, out_features)
        self.target: Target | None = None
        first, end = self.rows
        d, s, k = config.kernel_size, config.effective_stride, config.rank
        self.shape_and_scale = ShapeAndScale(
            stride=s, scale=config.scale, out_features=end - first, in_features=in_features
        )
        stack = () if count is None else (count,)
        p, q = subspace_size(in_features, d, s), subspace_size(end - first, d, s)
        self.A, self.B, self.C = (
            nn.Parameter(torch.empty(*stack, *shape, device=device))
            for shape in ((k, p), (q, k), (d, d))
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A, B and C from torch's global random state."""
        if self.config.init == "normal":
            for parameter in (self.A, self.B, self.C):
                nn.init.normal_(parameter, std=INIT_STD)
        else:
            for factor in (self.A, self.B):
                for matrix in factor.detach().view(-1, *factor.shape[-2:]):
                    nn.init.orthogonal_(matrix)
            nn.init.zeros_(self.C)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Compute A' (..., k d, in) and B' (..., out, k d) of the whole weight, in float32."""
        with full_precision(self.A):  # they are small and worth it
            down, up = low_rank_factors(self.A, self.B, self.C, **self.shape_and_scale)
        return down, self._in_all_rows(up)

    def delta_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Compute dW (..., out, in) of the whole weight in `dtype`, in mixed precision too."""
        A, B, C = (factor.to(dtype) for factor in (self.A, self.B, self.C))
        with full_precision(self.A):
            block = delta_weight(A, B, C, **self.shape_and_scale)
        return self._in_all_rows(block)

    def _in_all_rows(self, block: Tensor) -> Tensor:
        first, end = self.rows
        if end - first == self.out_features:
            return block
        return F.pad(block, (0, 0, first, self.out_features - end))

    def extra_repr(self) -> str:
        """Return the settings for `print(model)`."""
        c = self.config
        return (
            f"kernel_size={c.kernel_size}, stride={c.effective_stride}, rank={c.rank}, "
            f"scale={c.scale}"
        )
