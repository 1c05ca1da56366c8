"""The gradient start: A and B from the first gradient of the frozen weights, C = 0.

With C = 0 the adapted model is the base model, for any A and B, so both can be chosen freely.
The best choice is the one for which the loss falls fastest as soon as C moves: with G = dL/dW,

    max over |u| = |v| = |C| = 1 of  <G, dW(u v^T, C)>

At stride = kernel size this is the nearest Kronecker product of Van Loan and Pitsianos (1993).
LoRA-GA (arXiv 2407.05000) starts LoRA from the first gradient, too, but has to change W for it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.functional import place_windows, sum_windows
from dcft_cli.adapter.inject import adapted_weights
from dcft_cli.adapter.layer import AdaptedWeight
from dcft_cli.adapter.sizes import subspace_size
from dcft_cli.targets.gradients import Loss, weight_gradients

_SWEEPS = 20  # more change the captured share of G by less than 1 %
_MAX_BYTES = 4 * 1024**3  # of gradients held at a time; a larger model takes several passes


def start_from_gradient(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], loss: Loss | None = None
) -> list[str]:
    """Set A and B of every adapter from the gradient of the frozen weights, and C to 0.

    Runs a forward and a backward pass over the batches, in the mode that the model is in (call
    `model.eval()` first for a gradient without dropout). Parameters that are not adapters, all
    gradients and torch's random state are left as they are. The result depends on nothing but the
    model and the batches.

    Args:
        model: a model with adapters, whose task head gives the encoder a gradient.
        batches: keyword arguments of the forward pass, labels included. A few hundred rows are
            enough. Base models with more than 4 GiB of adapted weights take several passes.
        loss: of the model's outputs and a batch; None: the model's own.

    Returns:
        Names of the adapters whose weight has no gradient. They keep the A and B that they have:
        orthonormal ones, after `init: zero` or `gradient`.
    """
    batches = list(batches)
    without: list[str] = []
    for group in _groups(model):
        matrices = [weight.matrix for weight in group]
        gradients = weight_gradients(model, matrices, batches, loss)
        for weight, gradient in zip(group, gradients, strict=True):
            for adapter in weight.dcft_adapters():
                rows = slice(*adapter.rows)
                if not _start(adapter, None if gradient is None else gradient[..., rows, :]):
                    without.append(adapter.target.name if adapter.target else "")
    return without


def leading_factors(
    gradient: Tensor, *, kernel_size: int, stride: int, rank: int
) -> tuple[Tensor, Tensor]:
    """Compute the A and B for which the first gradient of C is largest.

    Maximizes |dL/dC| over A with orthonormal rows and B with orthonormal columns, by the
    alternating power method: B, A and C in turn get the best value for the two others.

    Args:
        gradient: G = dL/dW, (out, in), finite and not zero.
        kernel_size, stride, rank: d, s and k.

    Returns:
        A (k, p) and B (q, k).
    """
    d, s = kernel_size, stride
    out_features, in_features = gradient.shape
    q, p = (subspace_size(size, d, s) for size in gradient.shape)
    gradient = gradient / gradient.abs().max()  # squares of tiny numbers would vanish
    generator = torch.Generator().manual_seed(0)
    A = _nearest_orthonormal(torch.randn(rank, p, generator=generator).to(gradient))
    C = torch.randn(d, d, generator=generator).to(gradient)
    for _ in range(_SWEEPS):
        right = gradient @ place_windows(A, d, s, in_features).mT  # (k, out, d)
        B = _nearest_orthonormal(sum_windows((right @ C.mT).mT, s, q))  # (k, q)
        left = place_windows(B, d, s, out_features) @ gradient  # (k, d, in)
        A = _nearest_orthonormal(sum_windows(C.mT @ left, s, p))
        C = (left @ place_windows(A, d, s, in_features).mT).sum(0)
        C = C / C.norm()
    return A, B.mT


def _nearest_orthonormal(rows: Tensor) -> Tensor:
    """Return the orthonormal rows (k, n) nearest to `rows` (k, n): the polar factor."""
    U, _, V = torch.linalg.svd(rows, full_matrices=False)
    nearest: Tensor = U @ V
    return nearest


@torch.no_grad()
def _start(adapter: DCFTAdapter, gradient: Tensor | None) -> bool:
    """Set A and B from a gradient (..., rows, in); return whether there is one."""
    adapter.C.zero_()
    if gradient is None:
        return False
    c = adapter.config
    found = False
    A, B = (factor.view(-1, *factor.shape[-2:]) for factor in (adapter.A, adapter.B))
    for number, G in enumerate(gradient.reshape(-1, *gradient.shape[-2:]).float()):
        if G.any() and G.isfinite().all():  # an expert that no token chose has none
            a, b = leading_factors(
                G, kernel_size=c.kernel_size, stride=c.effective_stride, rank=c.rank
            )
            A[number].copy_(a)
            B[number].copy_(b)
            found = True
    return found


def _groups(model: nn.Module) -> Iterator[list[AdaptedWeight]]:
    """Iterate over the adapted weights, in groups whose gradients fit into memory together."""
    group: list[AdaptedWeight] = []
    total = 0
    for weight in {id(w.matrix.parameter): w for w in adapted_weights(model)}.values():
        matrix = weight.matrix
        size = 4 * (matrix.count or 1) * matrix.out_features * matrix.in_features
        if group and total + size > _MAX_BYTES:
            yield group
            group, total = [], 0
        group.append(weight)
        total += size
    if group:
        yield group
