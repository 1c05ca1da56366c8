"""Evaluating with W + dW computed once: the same outputs, and nothing left behind."""

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dcft_cli import adapter_layers, merged
from dcft_cli.adapter import merge as merging
from dcft_cli.adapter.adapter import DCFTAdapter
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


def test_same_outputs_without_computing_any_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapt(Everything(), "*")
    expected = model(X).detach()

    def refuse(*args: object) -> None:
        raise AssertionError("an adapter was computed")

    with merged(model), torch.no_grad():
        monkeypatch.setattr(DCFTAdapter, "forward", refuse)
        monkeypatch.setattr(DCFTAdapter, "delta_weight", refuse)
        torch.testing.assert_close(model(X), expected, rtol=1e-4, atol=1e-4)


def test_weights_and_adapters_are_unchanged_afterwards() -> None:
    model = adapt(Everything(), "*")
    weights = {name: p.clone() for name, p in model.named_parameters()}
    with merged(model), torch.no_grad():
        before = model(X)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name])
    for adapter in adapter_layers(model).values():
        adapter.C.data.zero_()
    assert not torch.allclose(model(X), before)
    model(X).sum().backward()
    assert all(adapter.A.grad is not None for adapter in adapter_layers(model).values())


def test_passes_with_gradients_use_the_adapters() -> None:
    model = adapt(Everything(), "*")
    with merged(model):
        with torch.no_grad():
            model(X)
        model(X).sum().backward()
    assert all(adapter.C.grad.any() for adapter in adapter_layers(model).values())


def test_mixed_precision_does_not_round_the_sum() -> None:
    """W + dW in bfloat16 would lose a dW that is small compared to W."""
    model = adapt(nn.Sequential(linear(6, 6)), "0")
    model[0].base.weight.data.fill_(1)
    for factor in "ABC":
        nn.init.constant_(getattr(adapter_layers(model)["0"], factor), 0.05)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(X)
        with merged(model):
            assert model(X).equal(expected)


@pytest.mark.parametrize("case", ["half", "packed", "hooked", "large"])
def test_layers_that_cannot_be_merged_stay_exact(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer: nn.Module = linear(6, 6)
    if case == "packed":
        layer = Packed(layer, torch.uint8)
    if case == "half":
        layer = layer.to(torch.bfloat16)
    model = adapt(nn.Sequential(layer), "0")
    if case == "hooked":
        layer.register_forward_hook(lambda module, inputs, output: output + 1)
    if case == "large":
        monkeypatch.setattr(merging, "_MAX_BYTES", 100)
    x = X.to(torch.bfloat16) if case == "half" else X
    with merged(model), torch.no_grad():
        (found,) = (m for m in model.modules() if isinstance(m, DCFTLinear))
        assert found.merged is None
        inside = model(x)
    assert torch.equal(inside, model(x))
