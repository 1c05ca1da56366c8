"""A' and B' of all layers of a model at once.

One layer computes its factors in a dozen small operations, and as many for their gradients. In a
forward pass of the whole model, the first layer computes those of all layers, stacked by shape; the
end of the pass forgets them. A part of the model that is called by itself computes its own.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.functional import ShapeAndScale, low_rank_factors, place_windows, sum_windows
from dcft_cli.adapter.layer import DCFTLinear
from dcft_cli.adapter.precision import autocast_dtype, full_precision


class Factors(NamedTuple):
    """down = A' (k d, in) and up_t = B'^T (k d, rows) of an adapter; dW = up_t^T down."""

    down: Tensor
    up_t: Tensor


def make_factors(adapters: Sequence[DCFTAdapter], dtype: torch.dtype) -> list[Factors]:
    """Compute the factors of adapters of equal shapes and settings, in `dtype`."""
    A, B, C = (torch.stack([getattr(a, name) for a in adapters]) for name in "ABC")
    with full_precision(A):
        down, up = _LowRankFactors.apply(A, B, C, adapters[0].shape_and_scale)  # type: ignore[no-untyped-call]
    return list(map(Factors, down.to(dtype).unbind(), up.to(dtype).unbind()))


class _LowRankFactors(Function):
    """`functional.low_rank_factors` of stacks (n, ...), with a backward pass of few operations.

    Does not use `save_for_backward`: activation checkpointing counts saved tensors, and must count
    the same whether factors are made inside its region or before.
    """

    @staticmethod
    def forward(
        ctx: Any, A: Tensor, B: Tensor, C: Tensor, shape_and_scale: ShapeAndScale
    ) -> tuple[Tensor, Tensor]:
        ctx.B, ctx.C, ctx.p, ctx.shape_and_scale = B, C, A.shape[-1], shape_and_scale
        down, up = low_rank_factors(A, B, C, **shape_and_scale)
        return down, up.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_down: Tensor, grad_up: Tensor) -> tuple[Tensor | None, ...]:
        B, stride, scale = ctx.B.mT, ctx.shape_and_scale["stride"], ctx.shape_and_scale["scale"]
        d = ctx.C.shape[-1]
        grad_down, grad_up = (
            grad.reshape(*grad.shape[:-2], -1, d, grad.shape[-1]) for grad in (grad_down, grad_up)
        )
        grad_B = sum_windows(scale * ctx.C.unsqueeze(-3) @ grad_up, stride, B.shape[-1]).mT
        grad_C = place_windows(B, d, stride, grad_up.shape[-1]) @ grad_up.mT
        # Distributed training wants gradients with the strides of their parameters.
        grad_B = grad_B.clone(memory_format=torch.contiguous_format)
        return sum_windows(grad_down, stride, ctx.p), grad_B, scale * grad_C.sum(-3), None


class SharedFactors:
    """The factors of all adapted linear layers of a model, during a forward pass of it.

    A pass that Ctrl-C interrupts leaves its factors until the next pass of the whole model.

    Args:
        layers: every adapted linear layer of the model.
    """

    def __init__(self, layers: Sequence[DCFTLinear]) -> None:
        self.layers = layers
        self._made: dict[DCFTAdapter, Factors] = {}
        self._with_graph: bool | None = None  # whether the pass has gradients; None outside of one
        self._hooks: list[RemovableHandle] = []

    def install(self, model: nn.Module) -> None:
        """Have every forward pass of the model share them."""
        self._hooks = [
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._end, always_call=True),
        ]

    def get(self, adapter: DCFTAdapter, dtype: torch.dtype) -> Factors | None:
        """Return an adapter's factors of this pass; None without them in this type, or a graph."""
        if self._with_graph is None:
            return None
        if not self._made:
            # Not in the hook: accelerate switches autocast on in `forward`, after the hooks. And
            # the first layer may be checkpointed, which runs it without gradients.
            with torch.set_grad_enabled(self._with_graph):
                self._make()
        made = self._made.get(adapter)
        if made is None or made.down.dtype != dtype:
            return None
        return None if torch.is_grad_enabled() and not made.down.requires_grad else made

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _begin(self, model: nn.Module, inputs: object) -> None:
        self._made.clear()
        self._with_graph = torch.is_grad_enabled()

    def _make(self) -> None:
        groups: dict[tuple[Any, ...], dict[DCFTAdapter, None]] = defaultdict(dict)
        for layer in self.layers:
            if layer.merged is not None or not layer.only_multiplies():
                continue  # `plain` computes its own
            weight = layer.matrix.parameter
            dtype = autocast_dtype(weight.device.type) or weight.dtype
            for a in layer.dcft_adapters():
                shapes = a.A.shape, a.B.shape, a.C.shape, a.A.device
                groups[dtype, shapes, *a.shape_and_scale.values()][a] = None
        for (dtype, *_), adapters in groups.items():
            self._made |= zip(adapters, make_factors(list(adapters), dtype), strict=True)

    def _end(self, model: nn.Module, inputs: object, outputs: object) -> None:
        self._made.clear()
        self._with_graph = None
