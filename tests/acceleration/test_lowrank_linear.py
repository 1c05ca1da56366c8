"""The adapted product against the plain one: values and gradients, every shape and way through."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dcft_cli import DCFTConfig, adapter_layers, inject
from dcft_cli.acceleration.batched_factors import Factors
from dcft_cli.acceleration.lowrank_linear import Weight, adapted_products
from tests.small import always, perturb

SIZES = st.integers(1, 9)


def tensors(
    out: int, into: int, rank: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=dtype)

    x, down, up = draw(*shape, into), draw(rank, into), draw(rank, out)
    for tensor in (x, down, up):
        tensor.requires_grad_()
    return x, draw(out, into), draw(out), down, up


def product(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
    """With one adapter of all rows, whose factors are any."""
    parts = [Factors(down, up)]
    return adapted_products(x, [Weight(weight, bias, [(0, len(weight))], parts)])[0]


@settings(deadline=None)
@given(out=SIZES, into=SIZES, rank=st.integers(1, 4), tokens=st.integers(1, 12))
def test_values_and_gradients(out: int, into: int, rank: int, tokens: int) -> None:
    x, weight, bias, down, up = tensors(out, into, rank, (2, tokens))
    found = product(x, weight, bias, down, up)
    expected = x @ (weight + up.mT @ down).mT + bias
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    seed = torch.randn_like(found)
    ours = torch.autograd.grad(found, (x, down, up), seed)
    plain = torch.autograd.grad(expected, (x, down, up), seed)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tokens", [2, 20])
def test_gradcheck(tokens: int) -> None:
    x, weight, bias, down, up = tensors(5, 7, 3, (tokens,))
    assert torch.autograd.gradcheck(
        lambda x, down, up: product(x, weight, bias, down, up), (x, down, up)
    )


@pytest.mark.parametrize("tokens", [3, 64])
def test_blocks_of_rows(tokens: int) -> None:
    """Rows 2 to 4 and 5 to 8 of 9, each with its own factors."""
    x, weight, bias, down, up = tensors(9, 6, 4, (tokens,))
    rows = [(2, 4), (5, 8)]
    parts = [Factors(down[:2], up[:2, 2:4]), Factors(down[2:], up[2:, 5:8])]
    (found,) = adapted_products(x, [Weight(weight, bias, rows, parts)])
    whole = weight.clone()
    for (first, end), part in zip(rows, parts, strict=True):
        whole[first:end] += part.up.mT @ part.down
    expected = x @ whole.mT + bias
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found.square().sum(), (x, down, up))
    plain = torch.autograd.grad(expected.square().sum(), (x, down, up))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


WIDE = [(1024, 64, 128), (64, 1024, 136), (520, 1024, 132), (64, 1024, 8)]


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("sizes", WIDE)
def test_wide_layers(
    sizes: tuple[int, int, int], onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32 on a CPU, by either library."""
    always(onednn, monkeypatch)
    out, into, tokens = sizes
    layer = nn.Linear(into, out)
    model = perturb(inject(nn.Sequential(layer), DCFTConfig(kernel_size=8, targets=["0"])))
    (adapter,) = adapter_layers(model).values()
    x = torch.randn(tokens, into, requires_grad=True)
    dW = adapter.increment()
    parameters = [x, *adapter.parameters()]
    seed = torch.randn(tokens, out)
    ours = torch.autograd.grad(model(x), parameters, seed)
    plain = torch.autograd.grad(nn.functional.linear(x, layer.weight + dW), parameters, seed)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_any_shape_of_input(shape: tuple[int, ...]) -> None:
    x, weight, _, down, up = tensors(4, 6, 2, shape)
    found = product(x, weight, None, down, up)
    torch.testing.assert_close(found, x @ (weight + up.mT @ down).mT, rtol=0, atol=1e-11)
    found.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


def test_an_input_that_needs_no_gradient_gets_none() -> None:
    x, weight, bias, down, up = tensors(4, 6, 2, (5,))
    product(x.detach(), weight, bias, down, up).sum().backward()
    assert x.grad is None and down.grad is not None


def test_half_precision_never_rounds_the_sum() -> None:
    """A dW far below the weight's own resolution still has its effect."""
    x = torch.ones(64, 8, dtype=torch.bfloat16)
    weight = torch.ones(4, 8, dtype=torch.bfloat16)
    weight[:, ::2] = -1  # W x is 0
    down = torch.full((1, 8), 1e-2, dtype=torch.bfloat16)
    up = torch.full((1, 4), 1e-2, dtype=torch.bfloat16)
    assert torch.all(product(x, weight, None, down, up) > 5e-4)


def test_layers_that_are_not_plain_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks, an own forward, or weights that learn: then the layer itself computes."""

    def refuse(*tensors: object) -> Tensor:
        raise AssertionError("not a plain layer")

    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    hooked, replaced, learning = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 4)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    replaced.forward = lambda x: nn.functional.linear(x, replaced.weight) + 1
    for layer in (hooked, replaced, learning, Own(6, 4)):
        model = inject(nn.Sequential(layer), DCFTConfig(kernel_size=2, targets=["0"]))
        if layer is learning:
            layer.bias.requires_grad_()
        monkeypatch.setattr("dcft_cli.adapter.layer.adapted_products", refuse)
        x = torch.randn(3, 6)
        (adapter,) = adapter_layers(model).values()
        torch.testing.assert_close(model(x), layer(x) + x @ adapter.increment().mT)
        monkeypatch.setattr("dcft_cli.adapter.layer.adapted_products", adapted_products)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_is_obeyed(dtype: torch.dtype) -> None:
    model = inject(
        nn.Sequential(nn.Linear(12, 8).to(dtype)), DCFTConfig(kernel_size=4, targets=["0"])
    )
    x = torch.randn(5, 12)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    (adapter,) = adapter_layers(model).values()
    assert adapter.A.grad is not None and adapter.A.grad.dtype == torch.float32
    layer = adapter.matrix.module.float()
    expected = layer(x) + x @ adapter.increment().mT
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)


def test_gradients_survive_checkpointing() -> None:
    from torch.utils.checkpoint import checkpoint

    model = inject(nn.Sequential(nn.Linear(6, 6)), DCFTConfig(kernel_size=2, targets=["0"]))
    x = torch.randn(4, 6)
    (adapter,) = adapter_layers(model).values()
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in adapter.parameters()]
    model.zero_grad()
    checkpoint(model, x, use_reentrant=False).square().sum().backward()
    for parameter, gradient in zip(adapter.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_distributed_training_has_the_same_gradients(tmp_path: Path) -> None:
    """DistributedDataParallel counts on a gradient for every parameter, once a pass."""
    layers = [nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6)]
    model = perturb(inject(nn.Sequential(*layers), DCFTConfig(kernel_size=2, targets=["*"])))
    x = torch.randn(4, 6)
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(model(x).square().sum(), parameters)
    place = f"file://{tmp_path / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):
            model.zero_grad()
            parallel(x).square().sum().backward()
            for parameter, gradient in zip(parameters, expected, strict=True):
                torch.testing.assert_close(parameter.grad, gradient)
    finally:
        torch.distributed.destroy_process_group()


def test_compiled_layers_give_the_same() -> None:
    """The compiler gets the plain form, which it can see through, without a break."""
    layers = [nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 16)]
    model = perturb(inject(nn.Sequential(*layers), DCFTConfig(kernel_size=4, targets=["*"])))
    x = torch.randn(5, 16)
    parameters = [p for p in model.parameters() if p.requires_grad]
    plain = torch.autograd.grad(model(x).square().sum(), parameters)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x).square().sum(), parameters)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
