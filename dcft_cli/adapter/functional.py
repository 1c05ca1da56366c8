"""The increment dW of DCFT (Eq. 5 and 6) as pure functions of A, B and C.

Symbols: A (k, p) on the input side, B (q, k) on the output side, C (d, d) the kernel with its
rows along the output; d kernel size, s stride, k rank. All sizes that do not divide are cropped.

    dW = scale * conv_transpose2d(B A, C, stride=s)[:out, :in]      (out, in)

is never computed that way: at any stride it equals `scale * B' A'`, a product of two thin
matrices of inner size k d, made from A, B and C by copying and one small product.

For a stack of weights (the experts of a layer) all factors have leading dimensions `...` in
common, and so has dW.
"""

import torch.nn.functional as F
from torch import Tensor


def spread(factor: Tensor, kernel_size: int, stride: int, size: int) -> Tensor:
    """Lays each entry of `factor` where its kernel window places it.

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


def gather(windows: Tensor, stride: int, n: int) -> Tensor:
    """The adjoint of `spread`: adds up where each entry was laid.

    Args:
        windows: (..., k, d, size).
        stride: s.
        n: entries to a row.

    Returns:
        (..., k, n) with result[k, j] = sum over m of windows[k, m, s j + m].
    """
    *_, kernel_size, size = windows.shape
    full = (n - 1) * stride + kernel_size
    if size < full:
        windows = F.pad(windows, (0, full - size))
    return _diagonals(windows, stride, n).sum(-2)


def _diagonals(tensor: Tensor, stride: int, n: int) -> Tensor:
    """The entries [..., m, s j + m] of (..., d, size), as a view (..., d, n)."""
    tensor = tensor.contiguous()
    *lead, row, _ = tensor.stride()
    return tensor.as_strided((*tensor.shape[:-1], n), (*lead, row + 1, stride))


def low_rank_factors(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    stride: int,
    scale: float,
    out_features: int,
    in_features: int,
) -> tuple[Tensor, Tensor]:
    """The tied LoRA factors A' (..., k d, in) and B' (..., out, k d), scale included: dW = B' A'.

    Args:
        A: (..., k, p).
        B: (..., q, k).
        C: (..., d, d), C[n, m] with n along the output and m along the input.
        stride: step of the transposed convolution, 1 to d.
        scale: constant factor; goes into B'.
        out_features, in_features: shape of dW.
    """
    d = C.shape[-1]
    down = spread(A, d, stride, in_features).flatten(-3, -2)
    windows = spread(B.mT, d, stride, out_features)  # (..., k, n, out)
    # The long side of B' lies in memory as that of A' does: products with it are fast then.
    up = ((scale * C).mT.unsqueeze(-3) @ windows).flatten(-3, -2)  # (..., k m, out)
    return down, up.mT


def increment(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    stride: int,
    scale: float,
    out_features: int,
    in_features: int,
) -> Tensor:
    """dW (..., out, in), Eq. 5 and 6. Arguments as in `low_rank_factors`."""
    down, up = low_rank_factors(
        A, B, C, stride=stride, scale=scale, out_features=out_features, in_features=in_features
    )
    return up @ down
