"""The two ways in which a model carries a trained increment."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli.acceleration.lowrank_linear import Weight, adapted_products
from dcft_cli.acceleration.onednn import linear
from dcft_cli.adapter.activations import origin
from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.autocast import autocast_dtype
from dcft_cli.targets.weights import Matrix, is_packed

if TYPE_CHECKING:
    from dcft_cli.adapter.siblings import Siblings

_SOME = 4096  # of a weight's numbers, which tell the precision that it comes from


class Carrier(nn.Module):
    """What carries the adapters of a weight in a model."""

    def __init__(self, matrix: Matrix, adapters: Sequence[DCFTAdapter]) -> None:
        super().__init__()
        self.matrix = matrix
        self.adapters = nn.ModuleList(adapters)
        self.formed: Tensor | None = None

    def _increment(self, dtype: torch.dtype) -> Tensor:
        """dW of all adapters, computed in `dtype`, in the shape that the weight is stored in."""
        ours = [adapter for adapter in self.adapters if isinstance(adapter, DCFTAdapter)]
        whole = torch.stack([adapter.whole_increment(dtype) for adapter in ours]).sum(0)
        return self.matrix.as_stored(whole)

    def adapted(self, stored: Tensor) -> Tensor:
        """W + dW in the type of the weight, summed in float32."""
        return (stored + self._increment(torch.float32)).to(stored.dtype)

    def can_form(self) -> bool:
        """Whether W + dW, in the weight's type and in half precision, serves as well as W and dW.

        Not where W itself is of half precision, whatever it is held in: adding a small dW to
        numbers of that grid and rounding to it again loses most of dW.
        """
        weight = self.matrix.parameter.detach()
        if weight.dtype not in (torch.float32, torch.float64):
            return False
        some = weight.flatten()[:_SOME]
        return not any(
            torch.equal(some.to(half).to(some.dtype), some)
            for half in (torch.bfloat16, torch.float16)
        )

    @torch.no_grad()
    def form(self) -> None:
        """Computes W + dW as it is stored, which passes without gradients take from then on."""
        self.formed = self.adapted(self.matrix.parameter)

    def _formed_for(self, other: Tensor) -> Tensor | None:
        """W + dW if it is there and serves: not for gradients, nor on another device."""
        if self.formed is None or torch.is_grad_enabled() or self.formed.device != other.device:
            return None
        return self.formed

    @torch.no_grad()
    def fold(self) -> None:
        """Adds dW to the weight in place: in float64, rounded once to the weight's own type."""
        weight = self.matrix.parameter
        weight.copy_(weight.double() + self._increment(torch.float64))


class DCFTLinear(Carrier):
    """A frozen linear layer plus trained increments: y = W x + dW x + bias (Eq. 6).

    The wrapped layer is kept as it is in `base`, so that taking it out again is exact. Whatever
    else it has (`in_features`, `bias`, ...) is found here too.

    Args:
        matrix: weight of a linear layer, which may be stored transposed.
        adapters: one of the whole weight, or one for each block of its rows.
    """

    def __init__(self, matrix: Matrix, adapters: Sequence[DCFTAdapter]) -> None:
        super().__init__(matrix, adapters)
        self.base = matrix.module
        self.siblings: Siblings | None = None

    def can_form(self) -> bool:
        """Whether W + dW stands for the whole layer."""
        return self._is_plain() and super().can_form()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), at little more than the frozen layer's cost."""
        if (formed := self._formed_for(x)) is not None:
            formed = formed.mT if self.matrix.transposed else formed
            return linear(x, formed, cast("Tensor | None", self.base.bias))
        compiling, siblings = torch.compiler.is_compiling(), self.siblings
        if siblings is not None and not compiling and (y := siblings.take(self, x)) is not None:
            return y
        if compiling or not self._is_plain():
            y = cast("Tensor", self.base(x))
            for adapter in self._ours():
                down, up = adapter()
                y = y + F.linear(F.linear(x, down.to(x.dtype)), up.to(x.dtype))
            return y
        layers, source = self._computed_together(x), origin(x)
        half = autocast_dtype(x.device.type)
        given = x if half is None else x.to(half)
        weights = [layer._adapted(given.dtype, half is not None) for layer in layers]
        outputs = adapted_products(given, weights, source)
        if siblings is not None and len(layers) > 1:
            siblings.keep(x, layers[1:], outputs[1:])
        return outputs[0]

    def _computed_together(self, x: Tensor) -> "list[DCFTLinear]":
        """This layer, and those whose outputs it computes beside its own."""
        if self.siblings is not None and torch.is_grad_enabled() and not x.is_inference():
            layers = cast("list[DCFTLinear]", self.siblings.of(self))
            if layers and all(layer._can_be_skipped(x.device) for layer in layers):
                return layers
        return [self]

    def _can_be_skipped(self, device: torch.device) -> bool:
        """Whether a call does no more than compute: nothing brings weights, or changes inputs."""
        hooks = self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks
        base = cast("nn.Linear", self._modules["base"])
        own = hooks or "forward" in vars(self)
        return not own and self._is_plain() and base.weight.device == device

    def _ours(self) -> list[DCFTAdapter]:
        # Straight from where torch keeps them: by their names they take longer to find than the
        # products of a small batch take.
        adapters = cast("nn.Module", self._modules["adapters"])
        return cast("list[DCFTAdapter]", list(adapters._modules.values()))

    def _adapted(self, dtype: torch.dtype, cast_weights: bool) -> Weight:
        """W, bias and what is added in `dtype`, to which W and bias are cast where need be."""
        base, ours = cast("nn.Linear", self._modules["base"]), self._ours()
        weight, bias = base.weight, cast("Tensor | None", base.bias)
        if cast_weights:
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        if self.matrix.transposed:
            weight = weight.mT
        rows = [adapter.rows or (0, self.matrix.out_features) for adapter in ours]
        return Weight(weight, bias, rows, [adapter.factors(dtype) for adapter in ours])

    def _is_plain(self) -> bool:
        """Whether the wrapped layer computes W x + bias, frozen, and nothing besides.

        What offloads weights replaces the calls of modules that have some.
        """
        base = cast("nn.Module", self._modules["base"])
        linear = type(base) is nn.Linear or self.matrix.transposed
        hooks = base._forward_hooks or base._forward_pre_hooks
        replaced = any("forward" in vars(module) for module in (base, *self._ours()))
        own = base._parameters.values()
        trained = any(p is not None and p.requires_grad for p in own)
        return linear and not hooks and not replaced and not trained

    @property
    def weight(self) -> Tensor:
        """W + dW as the wrapped layer stores it, for code that reads it and calls no layer.

        A quantised weight is given as it is: code can only look at its type.
        """
        stored = cast("Tensor", self.base.weight)  # of this copy of the layer, if there are more
        if (formed := self._formed_for(stored)) is not None:
            return formed
        return stored if is_packed(stored) else self.adapted(stored)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


class DCFTWeight(Carrier):
    """Parametrization of a weight that the model's code reads: W + dW at each reading.

    Forms dW, and so costs a gradient of the weight's size: for weights that are not a linear
    layer's, where there is no call to add two thin products to.
    """

    def forward(self, stored: Tensor) -> Tensor:
        """The weight as it is stored, increments added."""
        formed = self._formed_for(stored)
        return self.adapted(stored) if formed is None else formed
