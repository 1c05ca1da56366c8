"""A trained increment, and the two ways in which a model carries it."""

from collections.abc import Sequence
from typing import Any, TypedDict, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.adapter.activations import origin
from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter.factors import Factors, factors, shared_factors
from dcft_cli.adapter.functional import increment, low_rank_factors
from dcft_cli.adapter.matrix import Matrix, is_packed
from dcft_cli.adapter.product import adapted_product
from dcft_cli.adapter.sizes import subspace_size

_SOME = 4096  # of a weight's numbers, which tell the precision that it comes from
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


class Carrier(nn.Module):
    """What carries the adapters of a weight in a model."""

    def __init__(self, matrix: Matrix, adapters: Sequence[DCFTAdapter]) -> None:
        super().__init__()
        self.matrix = matrix
        self.adapters = nn.ModuleList(adapters)
        self.formed: Tensor | None = None

    def _increment(self, dtype: torch.dtype) -> Tensor:
        """dW of all adapters, computed in `dtype`, in the shape that the weight is stored in."""
        ours = [adapter for adapter in self.adapters if isinstance(adapter, DCFTAdapter)]
        whole = torch.stack([adapter.whole_increment(dtype) for adapter in ours]).sum(0)
        return self.matrix.as_stored(whole)

    def adapted(self, stored: Tensor) -> Tensor:
        """W + dW in the type of the weight, summed in float32."""
        return (stored + self._increment(torch.float32)).to(stored.dtype)

    def can_form(self) -> bool:
        """Whether W + dW, in the weight's type and in half precision, serves as well as W and dW.

        Not where W itself is of half precision, whatever it is held in: adding a small dW to
        numbers of that grid and rounding to it again loses most of dW.
        """
        weight = self.matrix.parameter.detach()
        if weight.dtype not in (torch.float32, torch.float64):
            return False
        some = weight.flatten()[:_SOME]
        return not any(
            torch.equal(some.to(half).to(some.dtype), some)
            for half in (torch.bfloat16, torch.float16)
        )

    @torch.no_grad()
    def form(self) -> None:
        """Computes W + dW as it is stored, which passes without gradients take from then on."""
        self.formed = self.adapted(self.matrix.parameter)

    def _formed_for(self, other: Tensor) -> Tensor | None:
        """W + dW if it is there and serves: not for gradients, nor on another device."""
        if self.formed is None or torch.is_grad_enabled() or self.formed.device != other.device:
            return None
        return self.formed

    @torch.no_grad()
    def fold(self) -> None:
        """Adds dW to the weight in place: in float64, rounded once to the weight's own type."""
        weight = self.matrix.parameter
        weight.copy_(weight.double() + self._increment(torch.float64))


class DCFTLinear(Carrier):
    """A frozen linear layer plus trained increments: y = W x + dW x + bias (Eq. 6).

    The wrapped layer is kept as it is in `base`, so that taking it out again is exact. Whatever
    else it has (`in_features`, `bias`, ...) is found here too.

    Args:
        matrix: weight of a linear layer, which may be stored transposed.
        adapters: one of the whole weight, or one for each block of its rows.
    """

    def __init__(self, matrix: Matrix, adapters: Sequence[DCFTAdapter]) -> None:
        super().__init__(matrix, adapters)
        self.base = matrix.module

    def can_form(self) -> bool:
        """Whether W + dW stands for the whole layer."""
        return super().can_form() and self._is_plain()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), at little more than the frozen layer's cost."""
        if (formed := self._formed_for(x)) is not None:
            formed = formed.mT if self.matrix.transposed else formed
            return F.linear(x, formed, cast("Tensor | None", self.base.bias))
        ours = [adapter for adapter in self.adapters if isinstance(adapter, DCFTAdapter)]
        if torch.compiler.is_compiling() or not self._is_plain():
            y: Tensor = self.base(x)
            for adapter in ours:
                down, up = adapter.low_rank_factors()
                y = y + F.linear(F.linear(x, down.to(x.dtype)), up.to(x.dtype))
            return y
        weight = cast("Tensor", self.base.weight)
        bias = cast("Tensor | None", self.base.bias)
        if self.matrix.transposed:
            weight = weight.mT
        source = origin(x)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
            weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        rows = [adapter.rows or (0, self.matrix.out_features) for adapter in ours]
        parts = [adapter.factors(x.dtype) for adapter in ours]
        return adapted_product(x, weight, bias, rows, parts, source)

    def _is_plain(self) -> bool:
        """Whether the wrapped layer computes W x + bias, frozen, and nothing besides."""
        base = self.base
        linear = type(base) is nn.Linear or self.matrix.transposed
        changed = "forward" in vars(base) or base._forward_hooks or base._forward_pre_hooks
        return linear and not changed and not any(p.requires_grad for p in base.parameters())

    @property
    def weight(self) -> Tensor:
        """W + dW as the wrapped layer stores it, for code that reads it and calls no layer.

        A quantised weight is given as it is: code can only look at its type.
        """
        stored = cast("Tensor", self.base.weight)  # of this copy of the layer, if there are more
        if (formed := self._formed_for(stored)) is not None:
            return formed
        return stored if is_packed(stored) else self.adapted(stored)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


class DCFTWeight(Carrier):
    """Parametrization of a weight that the model's code reads: W + dW at each reading.

    Forms dW, and so costs a gradient of the weight's size: for weights that are not a linear
    layer's, where there is no call to add two thin products to.
    """

    def forward(self, stored: Tensor) -> Tensor:
        """The weight as it is stored, increments added."""
        formed = self._formed_for(stored)
        return self.adapted(stored) if formed is None else formed
