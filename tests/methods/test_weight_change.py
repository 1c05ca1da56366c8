"""How much the weights change, beside what each method tests by itself."""

import math

import pytest
import torch

from tests.families import tiny_model
from tests.methods.attached import attach, perturb
from tests.small import Packed

SETTINGS = {"dcft": {"kernel_size": 4}, "nola": {"bases": 4}}


@pytest.mark.parametrize("name", ["dcft", "lora", "sora", "nola", "road"])
def test_layers_of_zeros_are_left_out(name: str) -> None:
    model = tiny_model()
    for layer in model.bert.encoder.layer:
        torch.nn.init.zeros_(layer.attention.self.query.weight)
        torch.nn.init.zeros_(layer.attention.self.key.weight)
    targets = ["Q", "K", "V"]  # most of them
    change = perturb(attach(name, model, targets=targets, **SETTINGS.get(name, {}))).weight_change()
    assert change is not None and math.isfinite(change) and change > 0


@pytest.mark.parametrize("name", ["dcft", "lora", "sora"])
def test_quantized_layers_are_left_out(name: str) -> None:
    def change(*targets: str, packed: bool) -> float | None:
        model = tiny_model()
        if packed:
            for layer in model.bert.encoder.layer:
                own = layer.attention.self
                own.value = Packed(own.value, torch.uint8)
        method = attach(name, model, targets=list(targets), **SETTINGS.get(name, {}))
        with torch.no_grad():
            for parameter in method.parameters().values():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        return method.weight_change()

    assert change("V", packed=True) is None
    found = change("Q", "V", packed=True)
    assert found == pytest.approx(change("Q", packed=False), rel=1e-4)
