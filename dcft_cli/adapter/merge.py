"""A model whose weights have their increments in them, for as long as it is scored."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from dcft_cli.adapter.layer import Carrier

# Of W + dW, which stand beside the frozen weights: a larger model is scored by its factors.
_MOST_BYTES = 2 * 1024**3


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Within it, forward passes without gradients cost what they cost without adapters.

    W + dW of every weight is formed once, in the weight's own type, beside the frozen one, which
    stays as it is. Nothing is folded where that would cost precision (weights of half precision
    or less, whatever they are held in) or more than 2 GiB.

    Args:
        model: a model with adapters; they must not change meanwhile.
    """
    carriers = [m for m in model.modules() if isinstance(m, Carrier) and m.can_form()]
    if sum(carrier.matrix.parameter.nbytes for carrier in carriers) > _MOST_BYTES:
        carriers = []
    try:
        for carrier in carriers:
            carrier.form()
        yield
    finally:
        for carrier in carriers:
            carrier.formed = None
