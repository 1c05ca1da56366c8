"""Weights that accelerate keeps elsewhere and brings for the call of their module."""

from collections.abc import Callable

import pytest
import torch
from accelerate import cpu_offload
from torch import nn

from dcft_cli import merged
from dcft_cli.adapter.layer import DCFTLinear
from tests.families import tiny_model
from tests.small import adapt

IDS = torch.randint(0, 128, (3, 9), generator=torch.Generator().manual_seed(0))


def adapted() -> nn.Module:
    return adapt(tiny_model(), "Q", "K", "V", "O", "FFN").eval()


def offload(module: nn.Module) -> None:
    cpu_offload(module, execution_device=torch.device("cpu"))


def first_layer(model: nn.Module) -> DCFTLinear:
    return next(module for module in model.modules() if isinstance(module, DCFTLinear))


PARTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "model": lambda model: model,
    "layer": first_layer,
    "wrapped layer": lambda model: first_layer(model).base,
    "adapter": lambda model: first_layer(model).adapters[0],
}


@pytest.mark.parametrize("part", PARTS)
@torch.no_grad()
def test_the_numbers_stay(part: str) -> None:
    model = adapted()
    expected = model(input_ids=IDS).logits
    offload(PARTS[part](model))
    assert any(parameter.is_meta for parameter in model.parameters())
    torch.testing.assert_close(model(input_ids=IDS).logits, expected)
    with merged(model):
        torch.testing.assert_close(model(input_ids=IDS).logits, expected)
