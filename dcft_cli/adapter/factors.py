"""A' and B' of adapters, for all layers of a model at once.

A layer alone makes its factors of a dozen small operations, which cost more time than the products
that they are for. So the forward pass of a whole model makes those of all its layers, stacked by
shape, when the first of them is asked for, and forgets them at its end.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from dcft_cli.adapter.functional import gather, spread

if TYPE_CHECKING:
    from dcft_cli.adapter.layer import DCFTAdapter


# Measured on CPUs: from so many columns on, many small products beat one that ends in a few.
_WIDE = 512


def is_wide(rows: Tensor) -> bool:
    """Whether products over the columns of rows are taken in many small ones."""
    return rows.shape[1] >= _WIDE and rows.device.type == "cpu" and rows.dtype == torch.float32


def _tiled(rows: Tensor, factor: Tensor) -> Tensor:
    """Tiles of (tokens, n d), weighted by each row of `factor` (k, n) and added: (tokens, k, d)."""
    tokens, size = rows.shape
    k, n = factor.shape
    return torch.bmm(factor.expand(tokens, k, n), rows.view(tokens, n, size // n))


class Factors(NamedTuple):
    """dW = U^T A' of one adapter, scale included.

    Attributes:
        stride: s.
        down: A' (k d, in).
        up: U = B'^T (k d, out).
        A, B, C: the same increment's A (k, p), B^T (k, q) and scale C (d, d), as constants.
    """

    stride: int
    down: Tensor
    up: Tensor
    A: Tensor
    B: Tensor
    C: Tensor

    def project_in(self, x: Tensor) -> Tensor:
        """P = x A'^T, (tokens, in) to (tokens, k d)."""
        if self._is_tiled(x):
            return _tiled(x, self.A).flatten(1)
        return F.linear(x, self.down)

    def project_out(self, gradient: Tensor) -> Tensor:
        """Q = G U^T, (tokens, out) to (tokens, k d)."""
        if self._is_tiled(gradient):
            return (_tiled(gradient, self.B) @ self.C).flatten(1)
        return F.linear(gradient, self.up)

    def _is_tiled(self, rows: Tensor) -> bool:
        """Whether the kernel's windows lie side by side over rows, and are many."""
        d = len(self.C)
        return self.stride == d and rows.shape[1] % d == 0 and is_wide(rows)


class _LowRankFactors(Function):
    """`functional.low_rank_factors` of stacks (n, ...), with a backward pass of few operations.

    Saves nothing in autograd's way: a checkpoint counts what its region saves, and finds the same
    whether the factors are made inside it or not.
    """

    @staticmethod
    def forward(
        ctx: Any,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        stride: int,
        out_features: int,
        in_features: int,
    ) -> tuple[Tensor, Tensor]:
        d = C.shape[-1]
        down = spread(A, d, stride, in_features)
        windows = spread(B.mT, d, stride, out_features)
        ctx.windows, ctx.kernel = windows, C.unsqueeze(-3)
        ctx.sizes = A.shape[-1], B.shape[-2], stride
        return down.flatten(-3, -2), (ctx.kernel.mT @ windows).flatten(-3, -2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_down: Tensor, to_up: Tensor) -> tuple[Tensor | None, ...]:
        p, q, stride = ctx.sizes
        d = ctx.kernel.shape[-1]
        to_down, to_up = (_windows(gradient, d) for gradient in (to_down, to_up))
        to_B = gather(ctx.kernel @ to_up, stride, q).mT
        return (
            gather(to_down, stride, p),
            to_B.clone(memory_format=torch.contiguous_format),  # as distributed training wants it
            (ctx.windows @ to_up.mT).sum(-3),
            None,
            None,
            None,
        )


def _windows(factor: Tensor, d: int) -> Tensor:
    """(..., k d, size) as (..., k, d, size)."""
    *lead, rows, size = factor.shape
    return factor.reshape(*lead, rows // d, d, size)


def factors(adapters: Sequence["DCFTAdapter"], dtype: torch.dtype) -> list[Factors]:
    """Those of adapters of equal shapes and settings, in `dtype`."""
    sizes = adapters[0].sizes
    stride = sizes["stride"]
    device = adapters[0].A.device.type
    with torch.autocast(device, enabled=False):  # small, and worth their full precision
        A = torch.stack([adapter.A for adapter in adapters])
        B = torch.stack([adapter.B for adapter in adapters])
        C = torch.stack([adapter.C for adapter in adapters]) * sizes["scale"]
        down, up = _LowRankFactors.apply(  # type: ignore[no-untyped-call]
            A, B, C, stride, sizes["out_features"], sizes["in_features"]
        )
    stacks = (down, up, A.detach(), B.detach().mT, C.detach())
    singles = (stack.to(dtype).unbind() for stack in stacks)
    return [Factors(stride, *each) for each in zip(*singles, strict=True)]


class SharedFactors:
    """Makes the factors of all adapters in a model together while its forward pass lasts.

    A part of the model that is called by itself, or again in the backward pass by a checkpoint,
    makes its own.

    Args:
        model: whose forward pass it is.
        adapters: of linear layers in it.
    """

    def __init__(self, model: nn.Module, adapters: Sequence["DCFTAdapter"]) -> None:
        self._groups: dict[Hashable, list[DCFTAdapter]] = defaultdict(list)
        for adapter in adapters:
            adapter.shared = self
            shapes = adapter.A.shape, adapter.B.shape, adapter.C.shape
            self._groups[*shapes, *adapter.sizes.values()].append(adapter)
        self._made: dict[DCFTAdapter, Factors] = {}
        self._made_for: tuple[torch.dtype, bool] | None = None
        self._depth = 0
        self._hooks: list[RemovableHandle] = [
            model.register_forward_pre_hook(self._enter),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    def of(self, adapter: "DCFTAdapter", dtype: torch.dtype) -> Factors | None:
        """Those of one adapter; None outside a forward pass, and for a copy on another device."""
        if not self._depth:
            return None
        wanted = dtype, torch.is_grad_enabled()
        if self._made_for not in (wanted, (dtype, True)):
            self._made = {
                one: found
                for group in self._groups.values()
                for one, found in zip(group, factors(group, dtype), strict=True)
            }
            self._made_for = wanted
        return self._made.get(adapter)

    def stop(self) -> None:
        """Every layer makes its own from now on."""
        for hook in self._hooks:
            hook.remove()

    def _enter(self, model: nn.Module, inputs: object) -> None:
        if not torch.compiler.is_compiling():  # then it is the compiler's work
            self._forget()
            self._depth += 1

    def _leave(self, model: nn.Module, inputs: object, outputs: object) -> None:
        if not torch.compiler.is_compiling():
            self._forget()
            self._depth -= 1

    def _forget(self) -> None:
        self._made, self._made_for = {}, None
