"""Small attentions whose layers read the same input, trained together and each by itself."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dcft_cli import DCFTConfig, inject
from dcft_cli.adapter import layer
from dcft_cli.adapter.layer import DCFTLinear
from tests.small import perturb

WIDTH = 8


class Attention(nn.Module):
    """Q and V of its width, K of half of it; in another order, or not all of them, on request."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, out) for out in (WIDTH, WIDTH // 2, WIDTH))
        self.order = "qkv"

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        found = {}
        for name in self.order:
            found[name] = getattr(self, name)(x)
            x = self.between(x)
        parts = [found[name].sin() for name in sorted(found)]
        return torch.cat([*parts, x], -1).sum(-1, keepdim=True) * x


def network(count: int = 2, **settings: object) -> nn.Sequential:
    torch.manual_seed(0)
    config = DCFTConfig(**{"kernel_size": 4, "targets": ["Q", "K", "V"], **settings})
    model = nn.Sequential(OrderedDict({f"{n}_attn": Attention() for n in range(count)}))
    return perturb(inject(model, config, inputs={"input": inputs().float()})).double()


def inputs(tokens: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(2, tokens, WIDTH, generator=torch.Generator().manual_seed(3), dtype=dtype)
    return x.requires_grad_()


@contextmanager
def sizes(found: list[int]) -> Iterator[None]:
    """Collects how many layers are computed together, product by product."""
    plain = layer.adapted_products

    def counting(x: Tensor, weights: Any, source: Any) -> Any:
        found.append(len(weights))
        return plain(x, weights, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "adapted_products", counting)
        yield


def together(model: nn.Module, x: Tensor) -> tuple[list[int], list[Tensor]]:
    """Sizes of the products of a pass; its outputs and gradients."""
    found: list[int] = []
    with sizes(found):
        y = model(x)
    trained = [p for p in model.parameters() if p.requires_grad]
    return found, [y, *torch.autograd.grad(y.square().sum(), [x, *trained])]


def apart(model: nn.Module) -> nn.Module:
    """A copy whose layers know of no others."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, DCFTLinear):
            module.siblings = None
    return model


def waiting(model: nn.Module) -> list[object]:
    layers = [module for module in model.modules() if isinstance(module, DCFTLinear)]
    return [one.siblings._kept for one in layers if one.siblings and one.siblings._kept]
