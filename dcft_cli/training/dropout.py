"""Dropout on a CPU, at a fraction of what torch takes for it.

torch draws a random number for every value, which makes much of a small encoder's training step.
Here a number of 64 bits serves for four values, and probabilities are multiples of 2^-16. And where
attention has dropout, torch makes all its steps of full size, one after the other; here they are
made for some texts at a time, which stay in the processor's cache.

Random numbers are those of torch's generator, so that seeds, checkpoints and resumed runs mean what
they do.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from dcft_cli.acceleration.onednn import is_watched

_LANES, _GRID = 4, 2**16  # values for a number of 64 bits, and what its quarter tells apart
_WORTH = 2**12  # values: below, it is Python that takes the time
_AT_A_TIME = 2**18  # scores: 1 MB


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor | None:
    """As in torch.nn.functional; None for what only torch knows: all but float32 on the CPU."""
    if not training or inplace or not _is_ours(p, input):
        return None
    dropped: Tensor = _Dropout.apply(input, p)  # type: ignore[no-untyped-call]
    return dropped


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """`scaled_dot_product_attention` with dropout; None for what only torch knows."""
    alike = query.ndim == 4 and query.shape[:2] == key.shape[:2] == value.shape[:2]
    if is_causal or not alike or not _is_ours(dropout_p, query, key, value):
        return None
    if attn_mask is not None:
        known = attn_mask.dtype in (torch.bool, torch.float32) and 2 <= attn_mask.ndim <= 4
        if attn_mask.requires_grad or not known:
            return None
        attn_mask = attn_mask[(None,) * (4 - attn_mask.ndim)]
        if len(attn_mask) not in (1, len(query)):
            return None
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    out: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, attn_mask, dropout_p, scale
    )
    return out.transpose(1, 2)


def _is_ours(p: float, *tensors: Tensor) -> bool:
    return (
        1 / _GRID < p < 1 - 1 / _GRID
        and tensors[0].numel() >= _WORTH
        and all(type(one) is Tensor and one.dtype == torch.float32 for one in tensors)
        and all(one.device.type == "cpu" for one in tensors)
        and not torch.compiler.is_compiling()
        and not is_watched()
    )


def _kept(shape: Sequence[int], p: float) -> tuple[Tensor, float]:
    """1 where values are kept, else 0, and what they are multiplied by to keep the mean."""
    size, least = math.prod(shape), round(p * _GRID)
    drawn = torch.empty(-(-size // _LANES), dtype=torch.int64, device="cpu")
    drawn.random_(-(2**63), None)
    kept = drawn.view(torch.int16)[:size].view(shape) >= least - _GRID // 2
    # By a byte torch multiplies twice as fast as by a truth value, which is one, and six times as
    # fast as it selects.
    return kept.view(torch.uint8), _GRID / (_GRID - least)


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        kept, ctx.factor = _kept(x.shape, p)
        ctx.save_for_backward(kept)
        return (x * kept).mul_(ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradient * kept).mul_(ctx.factor), None


class _Attention(Function):
    """softmax(scale q k^T + mask), some of it dropped, times v.

    q (B, heads, L, d), k and v (B, heads, S, d and e), mask None or like (B, heads, L, S), a truth
    value or a number to add. The result is (B, L, heads, e), and gradients are stored so, as models
    go on with them.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float, scale: float
    ) -> Tensor:
        shape = (*q.shape[:3], k.shape[2])
        kept, ctx.factor = _kept(shape, p)
        probabilities, out = q.new_empty(shape), _by_position(q, v.shape[3])
        by_head = out.transpose(1, 2)
        blind = None if mask is None else _blind(mask)
        for some in _texts(shape):
            part = probabilities[some]
            scores = (q[some] * scale) @ k[some].mT
            torch.softmax(_masked(scores, mask, some), -1, out=part)
            if blind is not None:
                part.masked_fill_(_of(blind, some), 0)
            by_head[some] = (part * kept[some]) @ v[some] * ctx.factor
        ctx.save_for_backward(q, k, v, probabilities, kept)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, probabilities, kept = ctx.saved_tensors
        gradient = gradient.transpose(1, 2)
        to_q, to_k, to_v = (_by_position(x, x.shape[3]).transpose(1, 2) for x in (q, k, v))
        for some in _texts(probabilities.shape):
            part, G = probabilities[some], gradient[some] * ctx.factor
            to_v[some] = (part * kept[some]).mT @ G
            to_scores = (G @ v[some].mT).mul_(kept[some])
            to_scores = torch._softmax_backward_data(to_scores, part, -1, part.dtype)
            to_q[some] = (to_scores @ k[some]).mul_(ctx.scale)
            to_k[some] = (to_scores.mT @ q[some]).mul_(ctx.scale)
        return to_q, to_k, to_v, None, None, None


def _by_position(like: Tensor, size: int) -> Tensor:
    """Room for (B, L, heads, size), beside (B, heads, L, ...)."""
    B, heads, L, _ = like.shape
    return like.new_empty(B, L, heads, size)


def _texts(shape: Sequence[int]) -> list[slice]:
    """The texts of a batch, as many at a time as fit into the cache."""
    n = max(_AT_A_TIME // max(math.prod(shape[1:]), 1), 1)
    return [slice(first, first + n) for first in range(0, shape[0], n)]


def _of(mask: Tensor, some: slice) -> Tensor:
    return mask if len(mask) == 1 else mask[some]


def _masked(scores: Tensor, mask: Tensor | None, some: slice) -> Tensor:
    if mask is None:
        return scores
    part = _of(mask, some)
    return scores.masked_fill_(~part, -math.inf) if mask.dtype == torch.bool else scores.add_(part)


def _blind(mask: Tensor) -> Tensor | None:
    """(..., L, 1), True for queries that may see nothing, whose probabilities are 0; None: none."""
    seen = mask if mask.dtype == torch.bool else mask != -math.inf
    blind = ~seen.any(-1, keepdim=True)
    return blind if bool(blind.any()) else None
