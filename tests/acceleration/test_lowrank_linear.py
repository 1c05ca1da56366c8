"""The product with an adapted weight against the plain layer: values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from dcft_cli import DCFTAdapter, DCFTConfig, DCFTLinear, adapter_layers, inject
from dcft_cli.acceleration import enable
from tests.acceleration.both_ways import assert_same_both_ways
from tests.small import Packed, adapt, linear

SIZES = st.integers(1, 9)


def layer(out: int, into: int, *, transposed: bool = False, **settings: object) -> nn.Sequential:
    torch.manual_seed(0)
    base = Conv1D(out, into) if transposed else nn.Linear(into, out)
    return adapt(nn.Sequential(base), "0", **settings).double()


@settings(deadline=None)
@given(out=SIZES, into=SIZES, rank=st.integers(1, 2), tokens=st.integers(1, 30), t=st.booleans())
def test_values_and_gradients(out: int, into: int, rank: int, tokens: int, t: bool) -> None:
    x = torch.randn(2, tokens, into, dtype=torch.float64)
    assert_same_both_ways(layer(out, into, transposed=t, rank=rank), lambda model: model(x))


@pytest.mark.parametrize("tokens", [3, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_blocks_of_rows(tokens: int, bias: bool) -> None:
    """Rows 2 to 4 and 5 to 8 of 9, each with its own adapter."""
    config = DCFTConfig(kernel_size=2, init="normal", scale=500.0)
    adapters = [DCFTAdapter(6, 9, config, rows=rows) for rows in ((2, 4), (5, 8))]
    base = nn.Linear(6, 9, bias=bias).requires_grad_(False)
    model = nn.Sequential(DCFTLinear(base, adapters)).double()
    x = torch.randn(tokens, 6, dtype=torch.float64)
    assert_same_both_ways(model, lambda model: model(x))


@pytest.mark.parametrize("sizes", [(1024, 64, 128), (64, 1024, 136), (520, 1024, 132)])
def test_wide_layers_in_float32(sizes: tuple[int, int, int]) -> None:
    out, into, tokens = sizes
    x = torch.randn(tokens, into)
    model = adapt(nn.Sequential(nn.Linear(into, out)), "0", kernel_size=8)
    assert_same_both_ways(model, lambda model: model(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_any_shape_and_layout_of_input(shape: tuple[int, ...]) -> None:
    model = layer(4, 6)
    enable(model)
    x = torch.randn(*shape, 6, dtype=torch.float64, requires_grad=True)
    model(x).mul_(2).sum().backward()  # outputs may be changed in place
    assert x.grad is not None and x.grad.shape == x.shape
    strided = torch.randn(6, *shape, dtype=torch.float64).movedim(0, -1)
    torch.testing.assert_close(model(strided), model(strided.contiguous()))


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    model, x = layer(4, 6), torch.randn(5, 6, dtype=torch.float64)
    enable(model)
    model(x).sum().backward()
    assert x.grad is None and adapter_layers(model)["0"].C.grad is not None


def test_half_precision_never_rounds_the_sum() -> None:
    """A dW far below the weight's own resolution still has its effect."""
    model = adapt(nn.Sequential(nn.Linear(8, 4, bias=False).bfloat16()), "0", kernel_size=1)
    weight = model[0].base.weight.data.fill_(1)
    weight[:, ::2] = -1  # W x is 0
    for factor in adapter_layers(model)["0"].parameters():
        factor.data.fill_(0.03)
    enable(model)
    assert (model(torch.ones(64, 8, dtype=torch.bfloat16)) > 1e-4).all()


class Shifted(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


def test_layers_that_do_more_than_multiply_are_called() -> None:
    """Hooks, another forward, packed weights, or weights that learn."""
    hooked, replaced, learning = linear(4, 6), linear(4, 6), linear(4, 6)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    replaced.forward = lambda x: nn.functional.linear(x, replaced.weight) + 1
    x = torch.randn(40, 6)
    for base in (hooked, replaced, learning, Shifted(6, 4), Packed(linear(4, 6), torch.int8)):
        model = adapt(nn.Sequential(base), "0")
        if base is learning:
            base.bias.requires_grad_()
        assert_same_both_ways(model, lambda model: model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_is_obeyed(dtype: torch.dtype) -> None:
    base = nn.Sequential(nn.Linear(12, 8).to(dtype))
    model = inject(base, DCFTConfig(kernel_size=4, targets=["0"]))
    enable(model)
    x = torch.randn(5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    adapter = adapter_layers(model)["0"]
    assert adapter.C.grad is not None and adapter.C.grad.dtype == torch.float32
    expected = model[0].base.float()(x) + x @ adapter.delta_weight().mT
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)


def test_gradients_under_checkpointing() -> None:
    model, x = layer(6, 6), torch.randn(4, 6, dtype=torch.float64)
    assert_same_both_ways(model, lambda model: checkpoint(model, x, use_reentrant=False))
