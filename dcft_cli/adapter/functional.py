"""The increment dW of DCFT (Eq. 5 and 6) as pure functions of A, B and C.

Symbols: A (k, p) on the input side, B (q, k) on the output side, C (d, d) the kernel with its
rows along the output; d kernel size, s stride, k rank. Sizes that s does not divide are cropped.

    dW = scale * conv_transpose2d(B A, C, stride=s)[:out, :in]      (out, in)

No transposed convolution is run: at any stride dW = B' A', a product of two thin matrices of
inner size k d, made from A, B and C by copying and one small product.

For a stack of weights (the experts of a layer) all factors, and dW, have the same leading
dimensions `...`.
"""

from typing import TypedDict, Unpack

import torch.nn.functional as F
from torch import Tensor


def place_windows(factor: Tensor, kernel_size: int, stride: int, size: int) -> Tensor:
    """Copy each entry of `factor` to every position of its kernel window.

    Args:
        factor: (..., k, n), one row per rank.
        kernel_size, stride: d and s, with 1 <= s <= d.
        size: number of features covered, at most (n - 1) s + d.

    Returns:
        (..., k, d, size) with result[k, m, i] = factor[k, j] where i = s j + m, else 0.
    """
    n = factor.shape[-1]
    placed = factor.new_zeros(*factor.shape[:-1], kernel_size, (n - 1) * stride + kernel_size)
    _diagonals(placed, stride, n).copy_(factor.unsqueeze(-2))
    return placed[..., :size]


def sum_windows(windows: Tensor, stride: int, n: int) -> Tensor:
    """Sum over each kernel window: the adjoint of `place_windows`.

    Args:
        windows: (..., k, d, size).
        stride: s.
        n: entries per row of the result.

    Returns:
        (..., k, n) with result[k, j] = sum over m of windows[k, m, s j + m].
    """
    *_, kernel_size, size = windows.shape
    full = (n - 1) * stride + kernel_size
    if size < full:
        windows = F.pad(windows, (0, full - size))
    return _diagonals(windows, stride, n).sum(-2)


def _diagonals(tensor: Tensor, stride: int, n: int) -> Tensor:
    """Return the entries [..., m, s j + m] of (..., d, size), as a view (..., d, n)."""
    tensor = tensor.contiguous()
    *lead, row, _ = tensor.stride()
    return tensor.as_strided((*tensor.shape[:-1], n), (*lead, row + 1, stride))


class ShapeAndScale(TypedDict):
    """The settings of an increment, in addition to A, B and C.

    Attributes:
        stride: step of the transposed convolution, 1 to d.
        scale: constant factor; goes into B'.
        out_features, in_features: shape of dW.
    """

    stride: int
    scale: float
    out_features: int
    in_features: int


def low_rank_factors(
    A: Tensor, B: Tensor, C: Tensor, **given: Unpack[ShapeAndScale]
) -> tuple[Tensor, Tensor]:
    """Compute A' (..., k d, in) and B' (..., out, k d), scale included in B': dW = B' A'.

    Args:
        A: (..., k, p).
        B: (..., q, k).
        C: (..., d, d), C[n, m] with n along the output and m along the input.
        given: stride, scale, out_features, in_features (`ShapeAndScale`).
    """
    d, stride = C.shape[-1], given["stride"]
    down = place_windows(A, d, stride, given["in_features"]).flatten(-3, -2)
    windows = place_windows(B.mT, d, stride, given["out_features"])  # (..., k, n, out)
    # B' is contiguous along `out`, as A' is along `in`: products with it are faster then.
    up = ((given["scale"] * C).mT.unsqueeze(-3) @ windows).flatten(-3, -2)  # (..., k m, out)
    return down, up.mT


def delta_weight(A: Tensor, B: Tensor, C: Tensor, **given: Unpack[ShapeAndScale]) -> Tensor:
    """Compute dW (..., out, in), Eq. 5 and 6. Arguments as in `low_rank_factors`."""
    down, up = low_rank_factors(A, B, C, **given)
    return up @ down
