"""Scoring with W + dW in the weights: the same answers, and nothing left behind."""

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dcft_cli import adapter_layers, folded
from dcft_cli.adapter import merge as folding
from dcft_cli.adapter.layer import DCFTLinear
from tests.small import Fused, Packed, SmallExperts, TransposedExperts, adapt, linear


class Everything(nn.Module):
    """A plain layer, blocks of a fused one, a transposed one and a stack of experts."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.up, self.down = Fused(), Conv1D(9, 6), linear(6, 9)
        self.experts, self.others = SmallExperts(), TransposedExperts()

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.up(self.attn(x)))
        return self.experts(x) + self.others(x)


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def test_the_same_answers() -> None:
    model = adapt(Everything(), "*")
    expected = model(X).detach()
    with folded(model), torch.no_grad():
        torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-4)


def test_nothing_of_the_adapter_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapt(Everything(), "*")

    def refuse(*arguments: object) -> None:
        raise AssertionError("not folded")

    with folded(model), torch.no_grad():
        expected = model(X)  # the stacks are formed when they are first read
        monkeypatch.setattr("dcft_cli.adapter.layer.DCFTAdapter.factors", refuse)
        monkeypatch.setattr("dcft_cli.adapter.layer.Carrier.adapted", refuse)
        assert torch.equal(model(X), expected)
        assert torch.equal(model.down.weight, model.down.formed)


def test_adapters_go_on_afterwards() -> None:
    model = adapt(Everything(), "*")
    weights = {name: p.clone() for name, p in model.named_parameters()}
    with folded(model), torch.no_grad():
        before = model(X)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name])
    for adapter in adapter_layers(model).values():
        adapter.C.data.zero_()
    assert not torch.allclose(model(X), before)
    model(X).sum().backward()
    assert all(adapter.A.grad is not None for adapter in adapter_layers(model).values())


def test_a_pass_with_gradients_is_as_ever() -> None:
    model = adapt(Everything(), "*")
    with folded(model):
        with torch.no_grad():
            model(X)
        model(X).sum().backward()
    assert all(adapter.C.grad.any() for adapter in adapter_layers(model).values())


@pytest.mark.parametrize("how", ["half", "held in float32", "packed", "hooked", "large"])
def test_what_cannot_be_folded_is_left(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer: nn.Module = linear(6, 6)
    if how == "packed":
        layer = Packed(layer, torch.uint8)
        layer.quant_state = None
    if how in ("half", "held in float32"):
        layer = layer.to(torch.bfloat16)
    if how == "held in float32":
        layer = layer.float()
    model = adapt(nn.Sequential(layer), "0")
    if how == "hooked":
        layer.register_forward_hook(lambda module, inputs, output: output + 1)
    if how == "large":
        monkeypatch.setattr(folding, "_MOST_BYTES", 100)
    x = X.to(torch.bfloat16) if how == "half" else X
    with folded(model), torch.no_grad():
        (found,) = (m for m in model.modules() if isinstance(m, DCFTLinear))
        assert found.formed is None
        inside = model(x)
    assert torch.equal(inside, model(x))
