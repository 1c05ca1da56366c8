"""Products of float32 matrices on AMD processors by oneDNN.

torch multiplies float32 by its BLAS, usually MKL, which is slow on AMD processors. oneDNN, which
torch uses for convolutions and half precision, takes 7 to 17 % less time for a large product on one
EPYC, and half on another (benchmarks/RESULTS.md).
"""

import functools
import os
import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Multiplications. oneDNN compiles code for every size, which takes about a millisecond once;
# smaller products do not save that time soon.
MIN_FLOPS = 2**22


@functools.cache
def is_faster() -> bool:
    """Return whether oneDNN replaces MKL here.

    Decided by the processor and the build of torch, never by timing: all processes agree.
    """
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and _operation() is not None
        and "AuthenticAMD" in _processor()
        and os.environ.get("LRU_CACHE_CAPACITY") not in ("", "0")  # torch crashes without it
    )


def _operation() -> Any:
    """Return what torch's own compiler calls; None in a build of torch without it.

    Private: torch has no public function that multiplies by oneDNN.
    """
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8") if info.exists() else platform.processor()


def linear(x: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + bias, (..., in) and (out, in) to (..., out), outside autograd.

    Small products, other types and other devices go to torch.
    """
    if not _goes_by_onednn(x, W):
        return F.linear(x, W, bias)
    # Any layout of x is accepted, but the rows of W must not overlap.
    (rows, columns), (by_row, by_column) = W.shape, W.stride()
    if not (by_column == 1 and by_row >= columns) and not (by_row == 1 and by_column >= rows):
        W = W.contiguous()
    # The last three: an operation to follow, its arguments, its algorithm.
    product: Tensor = _operation()(x, W, bias, "none", [], "")
    return product


def _goes_by_onednn(x: Tensor, W: Tensor) -> bool:
    return (
        x.dtype == W.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() * W.shape[0] >= MIN_FLOPS
        and x.layout == torch.strided
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class OneDNNLinear(nn.Linear):
    """A linear layer that multiplies by oneDNN while it is frozen."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        trained = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        if trained or torch.compiler.is_compiling():
            return super().forward(x)
        tokens = x.reshape(-1, x.shape[-1])
        y: Tensor = _FrozenLinear.apply(tokens, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], y.shape[-1])


class _FrozenLinear(Function):
    """x W^T + bias, with a gradient for x (tokens, in) only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(W)
        return linear(x, W, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (W,) = ctx.saved_tensors
        return linear(grad_output, W.to(grad_output.dtype).mT), None, None
