"""Products of float32 matrices on a CPU, by the faster of torch's two libraries.

torch multiplies float32 by its BLAS, most often MKL, which makes little of AMD's processors: there
oneDNN, which torch has for convolutions and half precision, takes less than half the time. On
others the two are more alike. So they are timed, once in a process.

All functions are for code that has its own gradients or needs none: nothing here makes a graph.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Multiplications. oneDNN makes code for every size, which takes about a millisecond once: what it
# saves of a smaller product does not make up for that soon.
_WORTH = 2**22
_THIN = 128  # rows or columns of the result
_CLEARLY = 0.8  # of the other's time: what a run computes shall not depend on chance
_TRIALS = 7

# What torch's compiler calls: x, W, bias, an operation to follow, its numbers, its algorithm.
_onednn: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def linear(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + bias: (..., in) and (out, in) to (..., out)."""
    if _goes_by_onednn(x, W):
        return _by_onednn(x, W, bias)
    return F.linear(x, W, bias)


def across_tokens(thin: Tensor, rows: Tensor) -> Tensor:
    """thin^T rows: (tokens, r) and (tokens, size) to (r, size)."""
    return linear(thin.mT, rows.mT)


def sum_of_products(gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The sum of all G W: (tokens, out_i) and (out_i, in) to (tokens, in)."""
    total = linear(gradients[0], weights[0].mT)
    for G, W in zip(gradients[1:], weights[1:], strict=True):
        if _goes_by_onednn(G, W.mT):
            total += _by_onednn(G, W.mT, None)
        else:
            total.addmm_(G, W)
    return total


def _goes_by_onednn(x: Tensor, W: Tensor) -> bool:
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    out, into = W.shape
    return (
        x.numel() * out >= _WORTH
        and W.dtype == x.dtype
        and all(type(tensor) in (Tensor, nn.Parameter) for tensor in (x, W))
        and bool(torch.backends.mkldnn.enabled)
        and _onednn_is_faster(thin=min(x.numel() // into, out) < _THIN)
    )


def _by_onednn(x: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = _onednn(x, W, bias, "none", [], "")
    return product


@functools.cache
def _onednn_is_faster(*, thin: bool) -> bool:
    """Whether it is, clearly: by the shortest of some products of each, a few ms in all."""
    x, W = torch.ones(2048 if thin else 512, 512), torch.ones(8 if thin else 512, 512)
    ways: list[Callable[[], object]] = [lambda: F.linear(x, W), lambda: _by_onednn(x, W, None)]
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
