"""What models ask torch for on a CPU while they train or are scored, computed sooner.

What is adapted has its own ways (`dcft_cli.adapter`). This is for the rest of a model: its dropout,
and layers that are frozen as they are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dcft_cli.acceleration.onednn import goes_by_onednn, linear, unsafe_view
from dcft_cli.training.dropout import attention, dropout


@contextmanager
def faster_on_cpu() -> Iterator[None]:
    """Within it, functions of torch.nn.functional take less time, whoever calls them by that name.

    `dropout`, and `scaled_dot_product_attention` with dropout, draw their random numbers four at a
    time; `linear` of frozen weights goes by the faster library. What is not known here goes to
    torch. Where a step computes something again in its backward pass, that must be within it, too.

    It holds for all threads, and may be nested, but not be left by two threads at different times.
    """
    before = {name: getattr(F, name) for name in _OURS}
    try:
        for name, ours in _OURS.items():
            setattr(F, name, _first(ours, before[name]))
        yield
    finally:
        for name, theirs in before.items():
            setattr(F, name, theirs)


def _first(ours: Callable[..., Tensor | None], theirs: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(theirs)
    def call(*args: Any, **kwargs: Any) -> Any:
        result = ours(*args, **kwargs)
        return theirs(*args, **kwargs) if result is None else result

    return call


def _frozen_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """None: it is trained, or torch's own library is as fast, or torch has something to say."""
    if not isinstance(input, Tensor) or not goes_by_onednn(input, weight):
        return None
    if not torch.is_grad_enabled():
        return linear(input, weight, bias)
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        return None
    product: Tensor = _FrozenLinear.apply(input, weight, bias)  # type: ignore[no-untyped-call]
    return product


class _FrozenLinear(Function):
    """x W^T + bias, with a gradient to x (..., in) alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        y = linear(x, weight, bias)
        return unsafe_view(y, y.shape) if y._is_view() else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return linear(gradient, weight.mT), None, None


_OURS: dict[str, Callable[..., Tensor | None]] = {
    "dropout": dropout,
    "scaled_dot_product_attention": attention,
    "linear": _frozen_linear,
}
