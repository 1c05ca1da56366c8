"""The modules that compute with the selected adapters, in the place of a model's own."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dcft_cli.adapter.functional import delta_weight
from dcft_cli.errors import ModelError
from dcft_cli.models.output_layer import OutputLayer
from dcft_cli.serving.selection import Selection, join_rows, selected
from dcft_cli.targets.modules import Wrapper
from dcft_cli.targets.weights import Matrix


class SelectedLinear(Wrapper):
    """A frozen linear layer plus the increments of the selected adapters: y = W x + dW x + bias.

    Args:
        base: the layer.
        weight: name of its weight, as adapter files have it.
    """

    def __init__(self, base: nn.Module, weight: str) -> None:
        super().__init__()
        self.base, self.weight_name = base, weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out).

        With an adapter for each row, dimension 0 of x is the rows. Where it is 1, x is the same for
        all of them (DeBERTa's table of positions), and y has all rows.
        """
        y: Tensor = self.base(x)
        selection = selected.get()
        if selection is None:
            return y
        for group in selection.groups:
            for block in group.layout.blocks.get(self.weight_name, ()):
                x, y = _by_row(x, selection), _by_row(y, selection)
                own = x if group.rows is None else x[group.rows]
                down, up = (factor.to(x.dtype) for factor in group.low_rank_factors(block))
                tokens = own.reshape(len(down), -1, own.shape[-1])
                delta = (tokens @ down.mT @ up.mT).view(*own.shape[:-1], -1).to(y.dtype)
                columns = y[..., slice(*block.rows or (None,))]
                if group.rows is None:
                    columns += delta
                else:
                    columns[group.rows] += delta
        return y


def _by_row(x: Tensor, selection: Selection) -> Tensor:
    """Return x with a row for each of the batch, if each has an adapter of its own."""
    size = selection.size
    if size is None or x.shape[0] == size:
        return x
    _require(x.shape[0] == 1)
    return x.expand(size, *x.shape[1:]).clone()


class SelectedParametrization(nn.Module):
    """W + dW each time the model's code reads the weight, with one adapter for all rows."""

    def __init__(self, matrix: Matrix, weight: str) -> None:
        super().__init__()
        self.matrix = matrix
        self.weight_name = weight

    def forward(self, stored: Tensor) -> Tensor:
        """Add dW to the weight as it is stored; summed in float32, in the weight's type."""
        selection = selected.get()
        if selection is None:
            return stored
        result = stored
        for group in selection.groups:
            for block in group.layout.blocks.get(self.weight_name, ()):
                _require(selection.size is None)
                A, B, C = block.factors(group.vectors)
                delta = delta_weight(A[0], B[0], C[0], **block.shape_and_scale)
                first, end = block.rows or (0, self.matrix.out_features)
                delta = F.pad(delta, (0, 0, first, self.matrix.out_features - end))
                result = result + self.matrix.as_stored(delta)
        return result.to(stored.dtype)


class SelectedHead(Wrapper):
    """A module outside the encoder, with the parameters of the selected adapters.

    Args:
        base: the module.
        name: its name in the model.
    """

    def __init__(self, base: nn.Module, name: str) -> None:
        super().__init__()
        self.base, self.name = base, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute as the module does.

        With an adapter for each row, the only argument has the rows as dimension 0. So has the
        result, whose last dimension is that of the widest (`join_rows`).
        """
        selection = selected.get()
        if selection is None:
            return self.base(*args, **kwargs)
        if selection.size is None:
            ((adapter, _),) = selection.rows
            return functional_call(self.base, adapter.head_of(self.name), args, kwargs)
        _require(len(args) == 1 and not kwargs and args[0].shape[0] == selection.size)
        parts = [
            (rows, self._with(adapter.head_of(self.name), args[0][rows]))
            for adapter, rows in selection.rows
        ]
        return join_rows(selection.size, parts)

    def _with(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        if isinstance(self.base, nn.Linear) and "weight" in parameters:  # functional_call is slow
            linear = self.base.compute if isinstance(self.base, OutputLayer) else F.linear
            return linear(x, parameters["weight"], parameters.get("bias", self.base.bias))
        return functional_call(self.base, parameters, (x,))  # type: ignore[no-any-return]


def _require(holds: bool) -> None:
    """Raise an error that ends a pass with an adapter for each row."""
    if not holds:
        raise ModelError(
            "This model does not keep the rows of a batch apart in all of its layers.",
            "Use one adapter at a time.",
        )
