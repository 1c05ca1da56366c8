"""The product with an adapted weight as one operation, forward and backward.

y = (W + dW) x + bias with dW = B' A'. Autograd over two thin products makes temporaries of full
size and adds them up. Here, with rows for tokens, G = dL/dy and U = B'^T (k d, out), `up_t`:

    forward    P = x A'^T                 (tokens, k d), saved
               y = x W^T + bias + P U
    backward   Q = G U^T                  (tokens, k d)
               dL/dx = G W + Q A'
               dL/dA' = Q^T x,  dL/dU = P^T G

Both sums are made in place, or, where the weight is small compared to the tokens, by forming
W + dW for the time of its product. Saved for the backward pass: x, W, P, A' and U.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dcft_cli.acceleration.batched_factors import SharedFactors, make_factors
from dcft_cli.adapter.layer import DCFTLinear, plain
from dcft_cli.adapter.precision import autocast_dtype

Rows = tuple[int, int]  # a range [start, end) of a weight's rows
Linear = Callable[..., Tensor]

# Sums in place touch (tokens, out) twice, forming W + dW touches (out, in) three times.
_TOKENS_TO_FORM = 1.5


@dataclass
class LowRankKernel:
    """A kernel of `DCFTLinear`: the same numbers as `plain` up to rounding, in fewer operations.

    Attributes:
        shared: the factors that a pass of the whole model has made for all layers.
        linear: computes x W^T + bias outside autograd.
    """

    shared: SharedFactors
    linear: Linear

    def __call__(self, layer: DCFTLinear, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        if torch.compiler.is_compiling() or not layer.only_multiplies():
            return plain(layer, x)
        base = layer.base  # of this replica, where nn.DataParallel has several
        weight, bias = layer.matrix.as_matrix(cast("Tensor", base.weight)), base.bias
        if (dtype := autocast_dtype(x.device.type)) is not None:
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        adapters = list(layer.dcft_adapters())
        factors = [
            self.shared.get(adapter, x.dtype) or make_factors([adapter], x.dtype)[0]
            for adapter in adapters
        ]
        rows = [adapter.rows for adapter in adapters]
        thin = [f.down for f in factors] + [f.up_t for f in factors]
        y: Tensor = _LowRankLinear.apply(  # type: ignore[no-untyped-call]
            x.reshape(-1, x.shape[-1]), weight, bias, rows, self.linear, *thin
        )
        return y.view(*x.shape[:-1], y.shape[-1])


class _LowRankLinear(Function):
    """x (tokens, in) to y (tokens, out), with gradients for x, every A' and every U."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W: Tensor,
        bias: Tensor | None,
        rows: Sequence[Rows],
        linear: Linear,
        *thin: Tensor,
    ) -> Tensor:
        downs, up_ts = thin[: len(rows)], thin[len(rows) :]
        inner = _split(linear(x, _cat(downs, 0)), downs, 1)
        if _forms_weight(x, W.shape[1]):
            y = linear(x, _adapted_weight(W, rows, downs, up_ts), bias)
        else:
            y = linear(x, W, bias)
            for block, P, up_t in zip(rows, inner, up_ts, strict=True):
                _columns(y, block).addmm_(P, up_t)
        ctx.rows, ctx.linear = rows, linear
        ctx.save_for_backward(x, W, *inner, *thin)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
        linear, rows = ctx.linear, ctx.rows
        x, W, *saved = ctx.saved_tensors
        inner, downs, up_ts = (saved[i * len(rows) : (i + 1) * len(rows)] for i in range(3))
        blocks = [_columns(G, block) for block in rows]
        Q = _cat([linear(block, up_t) for block, up_t in zip(blocks, up_ts, strict=True)], 1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            if _forms_weight(Q, G.shape[1]):
                grad_x = linear(G, _adapted_weight(W, rows, downs, up_ts).mT)
            else:
                grad_x = linear(G, W.mT).addmm_(Q, _cat(downs, 0))
        grad_down = linear(Q.mT, x.mT)
        grad_up_ts = [linear(P.mT, block.mT) for P, block in zip(inner, blocks, strict=True)]
        return grad_x, None, None, None, None, *_split(grad_down, downs, 0), *grad_up_ts


def _forms_weight(tokens: Tensor, size: int) -> bool:
    """Return whether to form W + dW; in half precision that would lose most of a small dW."""
    many = tokens.shape[0] > _TOKENS_TO_FORM * size
    return many and tokens.dtype in (torch.float32, torch.float64)


def _adapted_weight(
    W: Tensor, rows: Sequence[Rows], downs: Sequence[Tensor], up_ts: Sequence[Tensor]
) -> Tensor:
    merged = W.clone()
    for (first, end), down, up_t in zip(rows, downs, up_ts, strict=True):
        merged[first:end].addmm_(up_t.mT, down)
    return merged


def _columns(tokens: Tensor, block: Rows) -> Tensor:
    """Return the columns of (tokens, out) that a block of the weight's rows computes."""
    return tokens if block == (0, tokens.shape[1]) else tokens[:, slice(*block)]


def _cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def _split(tensor: Tensor, downs: Sequence[Tensor], dim: int) -> Sequence[Tensor]:
    """Split a tensor of (..., k d, ...) into one for each A'."""
    return torch.split(tensor, [down.shape[0] for down in downs], dim)
