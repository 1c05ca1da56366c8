"""Products of float32 matrices on a CPU, by the faster of torch's two libraries.

torch multiplies float32 by its BLAS, most often MKL, which makes little of an AMD processor: on an
EPYC oneDNN, which torch has for convolutions and half precision, takes half the time. Elsewhere
that may be otherwise. So they are timed, once in a process.

All functions are for code that has its own gradients or needs none: nothing here makes a graph.
"""

import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

# Multiplications. oneDNN makes code for every size, which takes about a millisecond once: what it
# saves of a smaller product does not make up for that soon.
_WORTH = 2**22
_THIN = 128  # rows or columns of the result
_CLEARLY = 0.7  # of the other's time: what a run computes shall hardly depend on chance
_TRIALS = 15

# In another shape, but not a view in autograd's eyes: those that come out of a Function cannot be
# changed in place.
unsafe_view = torch.ops.aten._unsafe_view.default

_blas = nn.functional.linear  # which others, and we, put something else in the place of
# What torch's compiler calls: x, W, bias, an operation to follow, its numbers, its algorithm.
_onednn: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def linear(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias: (..., in) and (out, in) to (..., out)."""
    plain = bias is None or (
        bias.shape == W.shape[:1] and bias.dtype == W.dtype and bias.device == W.device
    )
    if plain and goes_by_onednn(x, W):
        return _by_onednn(x, W, bias)
    return _blas(x, W, bias)


def across_tokens(thin: Tensor, rows: Tensor) -> Tensor:
    """thin^T rows: (tokens, r) and (tokens, size) to (r, size)."""
    return linear(thin.mT, rows.mT)


def sum_of_products(gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The sum of all G W: (tokens, out_i) and (out_i, in) to (tokens, in)."""
    total = linear(gradients[0], weights[0].mT)
    for G, W in zip(gradients[1:], weights[1:], strict=True):
        if goes_by_onednn(G, W.mT):
            total += _by_onednn(G, W.mT, None)
        else:
            total.addmm_(G, W)
    return total


def goes_by_onednn(x: Tensor, W: Tensor) -> bool:
    """Whether x W^T is large, and oneDNN the faster library for it."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if W.ndim != 2 or x.ndim == 0 or x.shape[-1] != W.shape[1]:
        return False
    out, into = W.shape
    return (
        x.numel() * out >= _WORTH
        and W.dtype == x.dtype
        and W.device == x.device
        and x.layout == W.layout == torch.strided
        and all(type(tensor) in (Tensor, nn.Parameter) for tensor in (x, W))
        and bool(torch.backends.mkldnn.enabled)
        and not is_watched()
        and _onednn_is_faster(thin=min(x.numel() // into, out) < _THIN)
    )


def is_watched() -> bool:
    """Whether something looks at what is computed that knows no rule for an operation of ours."""
    return (
        torch.is_autocast_enabled("cpu")
        or torch._C._get_tracing_state() is not None
        or bool(torch._C._are_functorch_transforms_active())
        or forward_ad._current_level >= 0
    )


def _by_onednn(x: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
    # It takes any layout of x, of W none whose rows overlap, and reads a bias as if contiguous.
    (rows, columns), (by_row, by_column) = W.shape, W.stride()
    if not (by_column == 1 and by_row >= columns) and not (by_row == 1 and by_column >= rows):
        W = W.contiguous()
    bias = None if bias is None else bias.contiguous()
    product: Tensor = _onednn(x, W, bias, "none", [], "")
    return product


@functools.cache
def _onednn_is_faster(*, thin: bool) -> bool:
    """Whether it is, clearly: by the shortest of some products of each, 0.05 s in all."""
    if os.environ.get("LRU_CACHE_CAPACITY") in ("", "0"):  # with which torch crashes there
        return False
    shapes = ((2048, 512), (8, 512)) if thin else ((512, 512), (512, 512))
    x, W = (torch.ones(shape, dtype=torch.float32, device="cpu") for shape in shapes)
    ways: list[Callable[[], object]] = [lambda: _blas(x, W), lambda: _by_onednn(x, W, None)]
    shortest = [float("inf")] * 2
    try:
        with torch.no_grad():
            for number in range(2 * _TRIALS):
                began = time.perf_counter()
                ways[number % 2]()
                shortest[number % 2] = min(shortest[number % 2], time.perf_counter() - began)
    except (RuntimeError, TypeError):  # not for this processor, or not in this build
        return False
    blas, onednn = shortest
    return onednn < _CLEARLY * blas
