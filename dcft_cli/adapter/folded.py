"""A model whose weights have their increments in them, for as long as it is scored."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import nn
from torch.nn.utils import parametrize

from dcft_cli.adapter.layer import Carrier, DCFTLinear

# Of W + dW, which stand beside the frozen weights: a larger model is scored by its factors.
_MOST_BYTES = 2 * 1024**3


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Within it, forward passes without gradients cost what they cost without adapters.

    W + dW of every weight is formed once, in the weight's own type, beside the frozen one, which
    stays as it is. Nothing is folded where that would cost precision (weights in half precision
    or less) or more than 2 GiB.

    Args:
        model: a model with adapters; they must not change meanwhile.
    """
    carriers = [m for m in model.modules() if isinstance(m, Carrier) and m.can_form()]
    weights = {id(c.matrix.parameter): c.matrix.parameter for c in carriers}
    if sum(weight.nbytes for weight in weights.values()) > _MOST_BYTES:
        carriers = []
    layers = [carrier for carrier in carriers if isinstance(carrier, DCFTLinear)]
    read = len(layers) < len(carriers)  # weights that the model's own code reads
    try:
        for layer in layers:
            layer.form()
        with parametrize.cached() if read else nullcontext():
            yield
    finally:
        for layer in layers:
            layer.formed = None
