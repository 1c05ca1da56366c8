"""The orthogonality term on A and B (Eq. 4), for all layers together."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from dcft_cli.adapter.adapter import DCFTAdapter

OrthogonalityForm = Literal["mean_norm", "squared"]


def orthogonality(layers: Iterable[DCFTAdapter], form: OrthogonalityForm = "mean_norm") -> Tensor:
    """Compute how far the rows of every A and the columns of every B are from orthonormal.

    With G = A A^T or B^T B, of shape (k, k):

    - "mean_norm" (the public implementation): the mean of ||G - I||_F over all A and B;
    - "squared": the sum of ||G - I||_F^2, which is Eq. 4 up to a constant. Eq. 4 writes the
      large Gram matrices A^T A and B B^T; the small ones carry the same gradient.

    Factors of equal shape are stacked, so the number of operations depends on the number of
    different shapes, not of layers.

    Args:
        layers: adapters; there must be at least one.

    Returns:
        A scalar.
    """
    by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for layer in layers:
        for factor in (layer.A, layer.B.mT):
            by_shape[factor.shape].append(factor)
    squared = torch.cat([_squared_distances(torch.stack(group)) for group in by_shape.values()])
    if form == "squared":
        return squared.sum()
    # The square root's slope is infinite at 0, where orthonormal factors start: no pull there.
    positive = squared > 0
    return torch.where(positive, squared, 1).sqrt().mul(positive).mean()


def _squared_distances(factors: Tensor) -> Tensor:
    """Compute ||G - I||_F^2 of each (k, n) factor of a stack (..., k, n), as a flat tensor."""
    gram = factors @ factors.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return (gram - identity).square().sum((-2, -1)).flatten()
