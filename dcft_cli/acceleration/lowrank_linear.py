"""The product with adapted weights, forward and backward, at little more than the frozen cost.

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

Weights that read the same x (`siblings`: Q, K and V) go through together: x is read once for all
their P, and once for all their dL/dA'; their dL/dx are added up. The backward pass waits
for the gradients of all of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dcft_cli.acceleration.batched_factors import Factors, joined, parted
from dcft_cli.acceleration.onednn import across_tokens, linear, sum_of_products, unsafe_view
from dcft_cli.adapter.activations import Origin

Rows = tuple[int, int]  # first and last + 1 of a weight's rows

# A sum in place passes twice over (tokens, out) or (tokens, in), forming W + dW three times over
# (out, in): measured on a CPU, too.
_TOKENS_TO_FORM = 1.5


class Weight(NamedTuple):
    """A frozen weight and what is added to it.

    Attributes:
        stored, bias: (out, in) and (out,), frozen, of the input's type.
        rows: of the weight that each adapter changes; none twice.
        parts: its factors, of the input's type.
    """

    stored: Tensor
    bias: Tensor | None
    rows: Sequence[Rows]
    parts: Sequence[Factors]


class _AdaptedProducts(Function):
    """x (..., in) to y (..., out) of every weight. `thin`: A' of every part, then every U.

    Keeps what x can be computed from, where that is known. Called for every layer in every step,
    so that on small batches its Python is what takes the time: what has no gradient comes in one
    piece, and shapes are undone in here and not by operations of their own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Sequence[Weight], source: Origin | None, *thin: Tensor
    ) -> tuple[Tensor, ...]:
        tokens = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
        downs = [part.down for weight in weights for part in weight.parts]
        inner = parted(linear(tokens, joined(downs, 0)), downs, 1)
        formed, P = _to_form(tokens, x.shape[-1]), iter(inner)
        outputs = []
        for weight in weights:
            W, ups = weight.stored, [part.up for part in weight.parts]
            if formed:
                W = _formed(W, weight.rows, [part.down for part in weight.parts], ups)
            y = linear(tokens, W, weight.bias)
            for rows, up in zip(weight.rows, ups, strict=True):
                if not formed:
                    _block(y, rows).addmm_(next(P), up)
            outputs.append(y if x is tokens else unsafe_view(y, (*x.shape[:-1], y.shape[1])))
        ctx.shape, ctx.rows = x.shape, [weight.rows for weight in weights]
        ctx.compute = None if source is None else source.compute
        kept = tokens if source is None else source.h
        stored = [weight.stored for weight in weights]
        ctx.save_for_backward(kept, *stored, *inner, *thin)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        tensors = iter(saved)
        stored = [next(tensors) for _ in gradients]
        inner, downs, ups = ([next(tensors) for rows in ctx.rows for _ in rows] for _ in range(3))
        by_token = [G.reshape(-1, G.shape[-1]) for G in gradients]
        blocks = [
            _block(G, one) for G, rows in zip(by_token, ctx.rows, strict=True) for one in rows
        ]
        Q = joined([linear(G, up) for G, up in zip(blocks, ups, strict=True)], 1)
        if ctx.compute is not None:
            x = ctx.compute(x).to(Q.dtype)
        to_down = across_tokens(Q, x.reshape(-1, ctx.shape[-1]))
        del x  # before there is a gradient of its size
        to_x = None
        if ctx.needs_input_grad[0]:
            if formed := _to_form(Q, sum(G.shape[1] for G in by_token)):
                down, up = iter(downs), iter(ups)
                stored = [
                    _formed(W, rows, [next(down) for _ in rows], [next(up) for _ in rows])
                    for W, rows in zip(stored, ctx.rows, strict=True)
                ]
            to_x = sum_of_products(by_token, stored)
            if not formed:
                to_x.addmm_(Q, joined(downs, 0))
            to_x = to_x.view(ctx.shape)
        to_up = [across_tokens(P, G) for P, G in zip(inner, blocks, strict=True)]
        return to_x, None, None, *parted(to_down, downs, 0), *to_up


def _to_form(tokens: Tensor, size: int) -> bool:
    """Whether W + dW is formed; in half precision it would lose most of a small dW."""
    many = tokens.shape[0] > _TOKENS_TO_FORM * size
    return many and tokens.dtype in (torch.float32, torch.float64)


def _block(tokens: Tensor, rows: Rows) -> Tensor:
    """The columns of (tokens, out) that rows of a weight make."""
    return tokens if rows == (0, tokens.shape[1]) else tokens[:, slice(*rows)]


def _formed(
    W: Tensor, rows: Sequence[Rows], downs: Sequence[Tensor], ups: Sequence[Tensor]
) -> Tensor:
    whole = W.clone()
    for (first, end), down, up in zip(rows, downs, ups, strict=True):
        whole[first:end].addmm_(up.mT, down)
    return whole


def adapted_products(
    x: Tensor, weights: Sequence[Weight], source: Origin | None = None
) -> tuple[Tensor, ...]:
    """(W + dW) x + bias of every weight, with gradients to x, A' and U, none to W and bias.

    Args:
        x: (..., in).
        weights: at least one; W, its bias, and what is added to it.
        source: where x comes from, if that shall be kept for the backward pass in its place.

    Returns:
        (..., out) of each.
    """
    parts = [part for weight in weights for part in weight.parts]
    found: tuple[Tensor, ...] = _AdaptedProducts.apply(  # type: ignore[no-untyped-call]
        x, weights, source, *[part.down for part in parts], *[part.up for part in parts]
    )
    return found
