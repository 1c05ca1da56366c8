"""The product with an adapted weight, forward and backward, at little more than the frozen cost.

y = W x + B' (A' x) + bias. Autograd over the two thin products would make temporaries of full size
and add them up. Here the thin parts are added in place, and thin factors lie along the long side of
every product, where it is fast:

    forward    P = A' x                        (r, tokens), kept
               y = W x + bias, B' P added in place
    backward   Q = B'^T G                      (r, tokens)
               dL/dx = W^T G, A'^T Q added in place
               dL/dA' = Q x^T,  dL/dB'^T = P G^T

with r = k d and G = dL/dy. Nothing is kept for the backward pass but x, which the adapter needs,
and P. W + B' A' is never formed: that was no faster, and in half precision it would lose most of a
small dW.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class _AdaptedProduct(Function):
    """Of rows: x (tokens, in) to y (tokens, out)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up_t: Tensor
    ) -> Tensor:
        inner = down @ x.mT
        y = F.linear(x, weight, bias).addmm_(inner.mT, up_t)
        ctx.save_for_backward(x, weight, down, up_t, inner)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up_t, inner = ctx.saved_tensors
        outer = up_t @ gradient.mT
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (gradient @ weight).addmm_(outer.mT, down)
        return to_x, None, None, outer @ x, inner @ gradient


def adapted_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor
) -> Tensor:
    """(W + B' A') x + bias with gradients to x, A' and B', none to the frozen W and bias.

    Args:
        x: (..., in).
        weight, bias: (out, in) and (out,), of x's type.
        down, up: A' (r, in) and B' (out, r), of x's type.

    Returns:
        (..., out).
    """
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor = _AdaptedProduct.apply(  # type: ignore[no-untyped-call]
        rows, weight, bias, down, up.mT.contiguous()
    )
    return y.view(*x.shape[:-1], weight.shape[0])
