"""A frozen linear layer plus a low-rank update: what SoRA and NOLA share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.methods.linear import LinearMethod
from dcft_cli.methods.weight_change import median_change, product_norm
from dcft_cli.targets.modules import Wrapper, replace_modules
from dcft_cli.targets.weights import Matrix


class LowRankLinear(Wrapper, ABC):
    """A layer y = W x + bias + scale * B A x with W and bias frozen (LoRA's form).

    Args:
        matrix: the weight of a linear layer.
        scale: alpha / r.
        dropout: rate of the dropout of x on its way to the update.
    """

    def __init__(self, matrix: Matrix, *, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base, self.matrix, self.scale = matrix.module, matrix, scale
        self.dropout = nn.Dropout(dropout)

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A (r, in) and B (out, r), in the type of the parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        A, B = self.factors()
        update = F.linear(F.linear(self.dropout(x), A.to(x.dtype)), B.to(x.dtype))
        y: Tensor = self.base(x)
        return y + self.scale * update

    def change(self) -> Tensor:
        """Return the Frobenius norm of dW = scale * B A."""
        A, B = self.factors()
        return self.scale * product_norm(B, A)


def lowrank_layers(model: nn.Module) -> Iterator[LowRankLinear]:
    """Iterate over the layers with a low-rank update, in the model's order."""
    return (module for module in model.modules() if isinstance(module, LowRankLinear))


class LowRankMethod(LinearMethod):
    """A method whose layers are `LowRankLinear`."""

    def detach(self) -> None:
        """Put the plain layers back, as they were."""
        replace_modules(self.model, {layer: layer.base for layer in lowrank_layers(self.model)})

    def weight_change(self) -> float | None:
        """Return the median of |dW| / |W| over the layers; None if there is none to compare."""
        return median_change((layer.matrix, layer.change) for layer in lowrank_layers(self.model))

    @torch.no_grad()
    def fold(self) -> None:
        """Add every dW to its weight, in float64 and rounded once, and restore the plain layers.

        Raises:
            ModelError: a weight is quantized; nothing is changed then.
        """
        layers = list(lowrank_layers(self.model))
        for layer in layers:
            layer.matrix.refuse_quantized()
        for layer in layers:
            A, B = (factor.double() for factor in layer.factors())
            stored = layer.matrix.parameter
            stored.copy_(layer.matrix.as_stored(layer.scale * (B @ A)).add_(stored))
        self.detach()
