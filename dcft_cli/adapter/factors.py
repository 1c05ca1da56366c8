"""A' and B' of adapters, for all layers of a model at once.

A layer alone makes its factors of a dozen small operations, and as many for their gradients. So the
forward pass of a whole model makes those of all its layers, stacked by shape, when the first of
them is asked for, and forgets them at its end.
"""

import threading
import weakref
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from dcft_cli.adapter.functional import gather, low_rank_factors, spread

if TYPE_CHECKING:
    from dcft_cli.adapter.layer import DCFTAdapter, Sizes


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
    def forward(ctx: Any, A: Tensor, B: Tensor, C: Tensor, sizes: "Sizes") -> tuple[Tensor, Tensor]:
        ctx.B, ctx.C, ctx.p, ctx.sizes = B, C, A.shape[-1], sizes
        down, up = low_rank_factors(A, B, C, **sizes)
        return down, up.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_down: Tensor, to_up: Tensor) -> tuple[Tensor | None, ...]:
        B, stride, scale = ctx.B.mT, ctx.sizes["stride"], ctx.sizes["scale"]
        d = ctx.C.shape[-1]
        to_down, to_up = (_windows(gradient, d) for gradient in (to_down, to_up))
        to_B = gather(scale * ctx.C.unsqueeze(-3) @ to_up, stride, B.shape[-1]).mT
        to_C = spread(B, d, stride, to_up.shape[-1]) @ to_up.mT
        return (
            gather(to_down, stride, ctx.p),
            to_B.clone(memory_format=torch.contiguous_format),  # as distributed training wants it
            scale * to_C.sum(-3),
            None,
        )


def _windows(factor: Tensor, d: int) -> Tensor:
    """(..., k d, size) as (..., k, d, size)."""
    *lead, rows, size = factor.shape
    return factor.reshape(*lead, rows // d, d, size)


def factors(adapters: Sequence["DCFTAdapter"], dtype: torch.dtype) -> list[Factors]:
    """Those of adapters of equal shapes and settings, in `dtype`."""
    sizes = adapters[0].sizes
    device = adapters[0].A.device.type
    with torch.autocast(device, enabled=False):  # small, and worth their full precision
        A = torch.stack([adapter.A for adapter in adapters])
        B = torch.stack([adapter.B for adapter in adapters])
        C = torch.stack([adapter.C for adapter in adapters])
        down, up = _LowRankFactors.apply(A, B, C, sizes)  # type: ignore[no-untyped-call]
        stacks = (down, up, A.detach(), B.detach().mT, C.detach() * sizes["scale"])
    singles = (stack.to(dtype).unbind() for stack in stacks)
    return [Factors(sizes["stride"], *each) for each in zip(*singles, strict=True)]


def shared_factors(adapter: "DCFTAdapter", dtype: torch.dtype) -> Factors | None:
    """Those that the pass of a whole model, now under way in this thread, makes for all layers.

    Returns:
        None where there is no such pass, or the adapter is none of that model's.
    """
    passes = _passes()
    return passes[-1].factors(adapter, dtype) if passes else None


class SharedFactors:
    """Makes the factors of all adapters in a model together while its forward pass lasts.

    A part of the model that is called by itself, or again in the backward pass by a checkpoint,
    makes its own.

    Args:
        model: whose forward pass it is.
        adapters: of linear layers in it.
    """

    def __init__(self, model: nn.Module, adapters: Sequence["DCFTAdapter"]) -> None:
        self.adapters = {id(adapter): adapter for adapter in adapters}
        self._hooks: list[RemovableHandle] = [
            model.register_forward_pre_hook(self._enter),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self.adapters = {id(adapter): adapter for adapter in self.adapters.values()}

    def stop(self) -> None:
        """Every layer makes its own from now on."""
        for hook in self._hooks:
            hook.remove()

    def _enter(self, model: nn.Module, inputs: object) -> None:
        if not torch.compiler.is_compiling():  # then it is the compiler's work
            self._close()
            _passes().append(_Pass(weakref.ref(self)))

    def _leave(self, model: nn.Module, inputs: object, outputs: object) -> None:
        if not torch.compiler.is_compiling():
            self._close()

    def _close(self) -> None:
        # One of ours may be open still: what stops a pass from outside (Ctrl-C) calls no hook.
        passes = _passes()
        passes[:] = [one for one in passes if one.owner() not in (self, None)]


class _Pass:
    """A forward pass of a model, from its beginning to its end."""

    def __init__(self, owner: "weakref.ref[SharedFactors]") -> None:
        self.owner = owner
        self.made: dict[int, tuple[Factors, tuple[object, ...]]] = {}

    def factors(self, adapter: "DCFTAdapter", dtype: torch.dtype) -> Factors | None:
        """As `shared_factors`."""
        owner = self.owner()
        if owner is None or id(adapter) not in owner.adapters:
            return None
        found, state = self.made.get(id(adapter), (None, ()))
        # With a gradient, they serve a part that runs without, too.
        if state not in (_state(adapter, dtype, True), _state(adapter, dtype)):
            groups: dict[Hashable, list[DCFTAdapter]] = defaultdict(list)
            for one in owner.adapters.values():
                shapes = one.A.shape, one.B.shape, one.C.shape
                groups[*shapes, one.A.device, one.A.dtype, *one.sizes.values()].append(one)
            for group in groups.values():
                for one, made in zip(group, factors(group, dtype), strict=True):
                    self.made[id(one)] = made, _state(one, dtype)
            found, _ = self.made[id(adapter)]
        return found


def _state(
    adapter: "DCFTAdapter", dtype: torch.dtype, gradients: bool | None = None
) -> tuple[object, ...]:
    """What an adapter's factors depend on."""
    versions = adapter.A._version, adapter.B._version, adapter.C._version
    return dtype, torch.is_grad_enabled() if gradients is None else gradients, versions


def _passes() -> list[_Pass]:
    """Those under way in this thread, the innermost last."""
    found: list[_Pass] = _here.__dict__.setdefault("passes", [])
    return found


_here = threading.local()
