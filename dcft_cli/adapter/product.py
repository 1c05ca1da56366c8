"""The product with an adapted weight, forward and backward, at little more than the frozen cost.

y = (W + dW) x + bias with dW = U^T A'. Autograd over two thin products would make temporaries of
full size and add them up. Here, with rows for tokens and G = dL/dy:

    forward    P = x A'^T                 (tokens, k d), kept
               y = x W^T + bias + P U
    backward   Q = G U^T                  (tokens, k d)
               dL/dx = G W + Q A'
               dL/dA' = Q^T x,  dL/dU = P^T G

Both sums are made in place, or, where a weight is small beside the tokens, by forming W + dW for
the time of its product. Nothing of full size is kept for the backward pass but x, which the adapter
needs, or what x is computed from again (`activations`), and W, which under autocast is its copy in
half precision, as for a frozen layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dcft_cli.adapter.activations import Origin
from dcft_cli.adapter.factors import Factors, is_wide

Rows = tuple[int, int]  # first and last + 1 of a weight's rows

# A sum in place passes twice over (tokens, out) or (tokens, in), forming W + dW three times over
# (out, in): measured on a CPU, too.
_TOKENS_TO_FORM = 1.5
_CHUNKS = 8  # of tokens, for products that end in few rows


class _AdaptedProduct(Function):
    """Of rows: x (tokens, in) to y (tokens, out). `thin`: A' of every part, then every U.

    Keeps what x can be computed from, where that is known.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        source: Origin | None,
        weight: Tensor,
        bias: Tensor | None,
        rows: Sequence[Rows],
        parts: Sequence[Factors],
        *thin: Tensor,
    ) -> Tensor:
        inner = [part.project_in(x) for part in parts]
        if _to_form(x, weight.shape[1]):
            y = F.linear(x, _formed(weight, rows, thin), bias)
        else:
            y = F.linear(x, weight, bias)
            for (first, end), P, up in zip(rows, inner, thin[len(rows) :], strict=True):
                y[:, first:end].addmm_(P, up)
        ctx.rows, ctx.stride = rows, parts[0].stride
        constants = [tensor for part in parts for tensor in (part.A, part.B, part.C)]
        kept = x if source is None else source.h.reshape(x.shape)
        ctx.compute = None if source is None else source.compute
        ctx.save_for_backward(kept, weight, *thin, *inner, *constants)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, n = ctx.rows, len(ctx.rows)
        x, weight, *saved = ctx.saved_tensors
        thin, inner, constants = saved[: 2 * n], saved[2 * n : 3 * n], saved[3 * n :]
        parts = [
            Factors(ctx.stride, thin[i], thin[n + i], *constants[3 * i : 3 * i + 3])
            for i in range(n)
        ]
        blocks = [gradient[:, first:end] for first, end in rows]
        outer = [part.project_out(block) for part, block in zip(parts, blocks, strict=True)]
        if ctx.compute is not None:
            x = ctx.compute(x).to(gradient.dtype)
        to_down = [_over_tokens(Q, x) for Q in outer]
        del x  # before there is a gradient of its size
        to_x = None
        if ctx.needs_input_grad[0]:
            if _to_form(gradient, weight.shape[0]):
                to_x = gradient @ _formed(weight, rows, thin)
            else:
                to_x = gradient @ weight
                for Q, down in zip(outer, thin[:n], strict=True):
                    to_x.addmm_(Q, down)
        to_up = [_over_tokens(P, block) for P, block in zip(inner, blocks, strict=True)]
        return to_x, None, None, None, None, None, *to_down, *to_up


def _to_form(rows: Tensor, size: int) -> bool:
    """Whether W + dW is formed; in half precision it would lose most of a small dW."""
    return len(rows) > _TOKENS_TO_FORM * size and rows.dtype in (torch.float32, torch.float64)


def _formed(weight: Tensor, rows: Sequence[Rows], thin: Sequence[Tensor]) -> Tensor:
    whole = weight.clone()
    for (first, end), down, up in zip(rows, thin[: len(rows)], thin[len(rows) :], strict=True):
        whole[first:end].addmm_(up.mT, down)
    return whole


def _over_tokens(thin: Tensor, rows: Tensor) -> Tensor:
    """thin^T rows: (tokens, r) and (tokens, size) to (r, size)."""
    tokens, size = rows.shape
    if is_wide(rows) and tokens % _CHUNKS == 0:
        chunk = tokens // _CHUNKS
        thin, rows = thin.view(_CHUNKS, chunk, thin.shape[1]), rows.view(_CHUNKS, chunk, size)
        return torch.bmm(thin.mT, rows).sum(0)
    return thin.mT @ rows


def adapted_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: Sequence[Rows],
    parts: Sequence[Factors],
    source: Origin | None = None,
) -> Tensor:
    """(W + dW) x + bias with gradients to x, A' and U, none to the frozen W and bias.

    Args:
        x: (..., in).
        weight, bias: (out, in) and (out,), of x's type.
        rows: of the weight that each adapter changes; none twice.
        parts: its factors, of x's type.
        source: where x comes from, if that shall be kept for the backward pass in its place.

    Returns:
        (..., out).
    """
    y: Tensor = _AdaptedProduct.apply(  # type: ignore[no-untyped-call]
        x.reshape(-1, x.shape[-1]),
        source,
        weight,
        bias,
        rows,
        parts,
        *(part.down for part in parts),
        *(part.up for part in parts),
    )
    return y.view(*x.shape[:-1], weight.shape[0])
