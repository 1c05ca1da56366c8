"""What enters the attention of a model, whatever computes it: to see what a projection is."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from transformers.modeling_utils import AttentionInterface

from dcft_cli.adapter.adapter import DCFTAdapter

Call = tuple[nn.Module, dict[str, Tensor]]


def attention_inputs(model: nn.Module, inputs: Mapping[str, Any]) -> list[Call]:
    """Every call of transformers' attention interface: the attention, and its Q, K and V."""
    calls: list[Call] = []
    original = AttentionInterface.get_interface

    def get_interface(self: AttentionInterface, *args: Any, **kwargs: Any) -> Any:
        function = original(self, *args, **kwargs)

        def watched(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *others: Any, **more: Any
        ) -> Any:
            calls.append((module, {"Q": query.clone(), "K": key.clone(), "V": value.clone()}))
            return function(module, query, key, value, *others, **more)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttentionInterface, "get_interface", get_interface)
        run(model, inputs)
    return calls


class Products(TorchFunctionMode):
    """Keeps the factors of every matrix product while `on`."""

    FUNCTIONS = frozenset(
        (
            torch.matmul,
            torch.Tensor.matmul,
            torch.Tensor.__matmul__,
            torch.bmm,
            torch.baddbmm,
            torch.Tensor.baddbmm,
            torch.einsum,
        )
    )

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.factors: list[list[Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self.on and func in self.FUNCTIONS:
            leaves = tree_leaves((args, kwargs))
            self.factors.append([leaf.clone() for leaf in leaves if isinstance(leaf, Tensor)])
        return func(*args, **(kwargs or {}))


def products_in(
    module: nn.Module, model: nn.Module, inputs: Mapping[str, Any]
) -> list[list[Tensor]]:
    """The factors of every matrix product inside a module of the model."""
    products = Products()

    def switch(on: bool) -> Any:
        return lambda *_: setattr(products, "on", on)

    hooks = [
        module.register_forward_pre_hook(switch(True)),
        module.register_forward_hook(switch(False)),
    ]
    with products:
        run(model, inputs)
    for hook in hooks:
        hook.remove()
    return products.factors


@torch.no_grad()
def run(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    torch.manual_seed(0)  # of hashing attentions
    return model(**inputs)


@contextmanager
def moved(adapters: Iterable[DCFTAdapter]) -> Iterator[None]:
    """Adapters that started at zero, away from it for a while."""
    adapters = list(adapters)
    generator = torch.Generator().manual_seed(1)
    for adapter in adapters:
        nn.init.normal_(adapter.C, generator=generator)
    yield
    for adapter in adapters:
        nn.init.zeros_(adapter.C)
