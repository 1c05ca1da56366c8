"""A' and B' of adapters, for all layers of a model at once.

A layer alone makes its factors of a dozen small operations, and as many for their gradients. So the
forward pass of a whole model makes those of all its layers, stacked by shape, when the first of
them is asked for, and forgets them at its end.
"""

import threading
import weakref
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from dcft_cli.adapter.autocast import without_autocast
from dcft_cli.adapter.functional import gather, low_rank_factors, spread

if TYPE_CHECKING:
    from dcft_cli.adapter.adapter import DCFTAdapter, Sizes


class Factors(NamedTuple):
    """dW = U^T A' of one adapter, scale included.

    Attributes:
        down: A' (k d, in).
        up: U = B'^T (k d, out).
    """

    down: Tensor
    up: Tensor


def joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Tensors of parts, side by side."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def parted(tensor: Tensor, downs: Sequence[Tensor], dim: int) -> Sequence[Tensor]:
    """The other way: one tensor of (..., k d, ...) for each part, whose A' are given."""
    if len(downs) == 1:
        return [tensor]
    return torch.split(tensor, [down.shape[0] for down in downs], dim)


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
    A, B, C = (torch.stack(some) for some in zip(*map(_trained, adapters), strict=True))
    with without_autocast(A.device.type):  # small, and worth their full precision
        down, up = _LowRankFactors.apply(A, B, C, sizes)  # type: ignore[no-untyped-call]
    return list(map(Factors, down.to(dtype).unbind(), up.to(dtype).unbind()))


def _trained(adapter: "DCFTAdapter") -> tuple[Tensor, Tensor, Tensor]:
    """A, B and C, straight from where torch keeps parameters: by their names it takes longer."""
    own = cast("dict[str, Tensor]", adapter._parameters)
    try:
        return own["A"], own["B"], own["C"]
    except KeyError:  # a replica of DataParallel, a parametrization, FSDP
        return adapter.A, adapter.B, adapter.C


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


class _Made(NamedTuple):
    """Factors, and what they were made from."""

    factors: Factors
    dtype: torch.dtype
    with_graph: bool
    versions: list[int]

    def serves(self, adapter: "DCFTAdapter", dtype: torch.dtype) -> bool:
        """Whether they are what would be made now; with a graph, they serve without one, too."""
        graph = self.with_graph or not torch.is_grad_enabled()
        return graph and self.dtype == dtype and self.versions == _versions(adapter)


class _Pass:
    """A forward pass of a model, from its beginning to its end."""

    def __init__(self, owner: "weakref.ref[SharedFactors]") -> None:
        self.owner = owner
        self.made: dict[int, _Made] = {}

    def factors(self, adapter: "DCFTAdapter", dtype: torch.dtype) -> Factors | None:
        """As `shared_factors`."""
        made = self.made.get(id(adapter))
        if made is None or not made.serves(adapter, dtype):
            owner = self.owner()
            if owner is None or id(adapter) not in owner.adapters:
                return None
            self._make(list(owner.adapters.values()), dtype)
            made = self.made[id(adapter)]
        return made.factors

    def _make(self, adapters: Sequence["DCFTAdapter"], dtype: torch.dtype) -> None:
        groups: dict[Hashable, list[DCFTAdapter]] = defaultdict(list)
        for one in adapters:
            if "forward" in vars(one):  # offloaded: it is there for its own call alone
                continue
            A, B, C = _trained(one)
            settings = *one.sizes.values(), A.device, A.dtype
            groups[A.shape, B.shape, C.shape, settings].append(one)
        graph = torch.is_grad_enabled()
        for group in groups.values():
            for one, found in zip(group, factors(group, dtype), strict=True):
                self.made[id(one)] = _Made(found, dtype, graph, _versions(one))


def _versions(adapter: "DCFTAdapter") -> list[int]:
    """Another one after every change of A, B or C."""
    return [factor._version for factor in _trained(adapter)]


def _passes() -> list[_Pass]:
    """Those under way in this thread, the innermost last."""
    found: list[_Pass] = _here.__dict__.setdefault("passes", [])
    return found


_here = threading.local()
