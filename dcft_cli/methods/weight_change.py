"""How much a method changes the weights of its model."""

from collections.abc import Callable, Iterable
from statistics import median

import torch
from torch import Tensor

from dcft_cli.targets.weights import Matrix


@torch.no_grad()
def median_change(layers: Iterable[tuple[Matrix, Callable[[], Tensor]]]) -> float | None:
    """Return the median of |dW| / |W| (Frobenius) over layers; None if there is none to compare.

    Weights that are quantized, split among processes or zero are left out.

    Args:
        layers: the weight of each, and a function that computes |dW|.
    """
    ratios = []
    for matrix, change in layers:
        if matrix.is_quantized or matrix.is_sharded:
            continue
        if size := float(matrix.parameter.float().norm()):
            ratios.append(float(change()) / size)
    return median(ratios) if ratios else None


def product_norm(B: Tensor, A: Tensor) -> Tensor:
    """Return |B A| of (..., out, r) and (..., r, in), of a whole stack if there is one."""
    # |B A|^2 is the sum of (B^T B) * (A A^T), elementwise, which avoids computing B A.
    return ((B.mT @ B) * (A @ A.mT)).sum().clamp_min(0).sqrt()
