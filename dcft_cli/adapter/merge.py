"""W + dW: for good, or for the time of an evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dcft_cli.adapter.inject import M, adapted_weights, remove_adapters
from dcft_cli.adapter.layer import AdaptedWeight, DCFTLinear

# Of W + dW, which is held in addition to W. Larger models are evaluated unmerged.
_MAX_BYTES = 2 * 1024**3


@torch.no_grad()
def merge(model: M) -> M:
    """Add every dW to its weight (Eq. 6) in place and remove the adapters.

    Each sum is taken in float64 and rounded once to the weight's own type. A model without
    adapters is left unchanged.

    Raises:
        ModelError: a weight is quantized; nothing is changed then.
    """
    # Layers that share a weight are merged once.
    weights = {id(w.matrix.parameter): w for w in adapted_weights(model)}.values()
    for weight in weights:
        weight.matrix.refuse_quantized()
    for weight in weights:
        merge_weight(weight)
    return remove_adapters(model)


@torch.no_grad()
def merge_weight(weight: AdaptedWeight) -> None:
    """Add dW to its weight in place, in float64, and round once; the adapters stay."""
    stored = weight.matrix.parameter
    stored.copy_(weight.delta_weight(torch.float64).add_(stored))


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Evaluate with W + dW computed once, so that adapters cost nothing.

    Affects passes without gradients and without mixed precision; the frozen weights and the
    adapters stay as they are, and must not change meanwhile. Does nothing for weights of half
    precision, where the sum would lose most of a small dW, for sharded weights, and
    for models with more than 2 GiB of adapted weights.

    Args:
        model: a model with adapters.
    """
    weights = [
        weight
        for weight in adapted_weights(model)
        if weight.matrix.parameter.dtype in (torch.float32, torch.float64)
        and not weight.matrix.is_sharded
        and (not isinstance(weight, DCFTLinear) or weight.only_multiplies())
    ]
    if sum(weight.matrix.parameter.nbytes for weight in weights) > _MAX_BYTES:
        weights = []
    try:
        with torch.no_grad():
            for weight in weights:
                weight.merged = weight.matrix.parameter + weight.delta_weight()
        yield
    finally:
        for weight in weights:
            weight.merged = None
