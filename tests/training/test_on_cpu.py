"""Functions of torch that training and scoring compute otherwise on a CPU."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dcft_cli import adapter_layers
from dcft_cli.acceleration import onednn as dense
from dcft_cli.targets.example import example_of
from dcft_cli.training.on_cpu import faster_on_cpu
from tests.architectures.tiny import tiny_model as any_tiny_model
from tests.jobs import recipe, train
from tests.small import adapt, always


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the products that went by oneDNN: all are worth it."""
    always(True, monkeypatch)
    sizes, product = [], dense._by_onednn

    def noting(x: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
        sizes.append((*x.shape, W.shape[0]))
        return product(x, W, bias)

    monkeypatch.setattr(dense, "_by_onednn", noting)
    return sizes


def layer(bias: bool = True) -> nn.Linear:
    return nn.Linear(6, 5, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6), (2, 3, 4, 6)])
def test_frozen_layers_go_by_the_faster_library(
    shape: tuple[int, ...], bias: bool, by_onednn: list[tuple[int, ...]]
) -> None:
    frozen, x = layer(bias), torch.randn(shape, requires_grad=True)
    expected = frozen(x)
    seed = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, x, seed)
    assert by_onednn == []
    with faster_on_cpu():
        found = frozen(x)
        (ours,) = torch.autograd.grad(found, x, seed)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours, gradient)
    assert by_onednn == [(*shape, 5), (*shape[:-1], 5, 6)]


def test_nothing_goes_backward_where_nothing_is_trained(by_onednn: list[tuple[int, ...]]) -> None:
    frozen, trained, x = layer(), nn.Linear(6, 5), torch.randn(4, 6)
    with faster_on_cpu():
        assert not frozen(x).requires_grad
        with torch.no_grad():
            assert not trained(x).requires_grad
    assert by_onednn == [(4, 6, 5)] * 2


def test_what_is_trained_is_torchs(by_onednn: list[tuple[int, ...]]) -> None:
    trained, bias, x = nn.Linear(6, 5), layer(), torch.randn(4, 6, requires_grad=True)
    bias.bias.requires_grad_(True)
    with faster_on_cpu():
        (trained(x).sum() + bias(x).sum()).backward()
    assert by_onednn == []
    assert all(one.grad is not None for one in (*trained.parameters(), bias.bias, x))


def test_where_the_blas_is_as_fast_it_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    always(False, monkeypatch)
    with faster_on_cpu():
        y = layer()(torch.randn(4, 6, requires_grad=True))
    assert y.grad_fn is not None and y.grad_fn.name() == "AddmmBackward0"


def test_checkpoints_compute_the_same_again(by_onednn: list[tuple[int, ...]]) -> None:
    layers, x = nn.Sequential(layer(), nn.Linear(5, 3)), torch.randn(4, 6, requires_grad=True)
    with faster_on_cpu():
        kept = torch.autograd.grad(layers(x).sum(), x)[0]
        again = torch.autograd.grad(checkpoint(layers, x, use_reentrant=False).sum(), x)[0]
    torch.testing.assert_close(again, kept)
    assert by_onednn == [(4, 6, 5), (4, 5, 6), *[(4, 6, 5)] * 2, (4, 5, 6)]


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
def test_what_comes_out_may_be_changed(
    shape: tuple[int, ...], by_onednn: list[tuple[int, ...]]
) -> None:
    frozen, x = layer(), torch.randn(shape, requires_grad=True)
    expected = torch.autograd.grad((frozen(x) / 3).relu().sum(), x)[0]
    with faster_on_cpu():
        y = frozen(x)
        y /= 3
        F.relu_(y)
        torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], expected)
    assert by_onednn[0] == (*shape, 5)


@pytest.mark.parametrize("family", ["longformer", "deberta"])
def test_models_that_change_it(family: str, by_onednn: list[tuple[int, ...]]) -> None:
    model = adapt(any_tiny_model(family), "FFN").eval()
    inputs = example_of(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(model(**inputs).logits.square().sum(), trained)

    expected, by_onednn[:] = gradients(), []
    with faster_on_cpu():
        found = gradients()
    assert len(by_onednn) > 4 * len(adapter_layers(model))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


W, x = torch.randn(5, 6), torch.randn(4, 6)
TORCHS: dict[str, Callable[[], Tensor]] = {
    "one bias for all": lambda: F.linear(x, W, torch.ones(1)),
    "a row of biases": lambda: F.linear(x, W, torch.ones(1, 5)),
    "a weight for one": lambda: F.linear(x, W[0]),
    "sparse weight": lambda: F.linear(x, W.to_sparse()),
}
REFUSED: dict[str, Callable[[], Tensor]] = {
    "sizes": lambda: F.linear(x, W.mT),
    "size of the bias": lambda: F.linear(x, W, torch.ones(4)),
    "type of the bias": lambda: F.linear(x, W, torch.ones(5).bfloat16()),
    "no tensor": lambda: F.linear([[1.0]], W),
    "number": lambda: F.linear(torch.tensor(1.0), W),
}


@pytest.mark.parametrize("name", TORCHS)
def test_what_only_torch_knows(name: str, by_onednn: list[tuple[int, ...]]) -> None:
    expected = TORCHS[name]()
    with faster_on_cpu():
        torch.testing.assert_close(TORCHS[name](), expected)


@pytest.mark.parametrize("name", REFUSED)
def test_torch_says_what_is_wrong(name: str, by_onednn: list[tuple[int, ...]]) -> None:
    errors = []
    for within in (nullcontext(), faster_on_cpu()):
        with within, pytest.raises((RuntimeError, TypeError)) as caught:
            REFUSED[name]()
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]
    assert by_onednn == []


def test_libraries_are_timed_once_within() -> None:
    """In a fresh process, where nothing has been timed: the BLAS is timed, not our own way."""
    script = """
import torch
from dcft_cli.acceleration import onednn as dense
from dcft_cli.training.on_cpu import faster_on_cpu

product, products = dense._by_onednn, []
dense._by_onednn = lambda *given: (products.append(1), product(*given))[1]
layer = torch.nn.Linear(512, 512).requires_grad_(False)
with faster_on_cpu():
    layer(torch.ones(512, 512))
print(len(products), dense._onednn_is_faster.cache_info().misses)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    products, misses = map(int, done.stdout.split())
    assert products <= dense._TRIALS + 1 and misses == 1


def test_torch_is_as_before_afterwards() -> None:
    before = F.dropout, F.scaled_dot_product_attention, F.linear
    with pytest.raises(KeyboardInterrupt), faster_on_cpu():
        assert not {F.dropout, F.scaled_dot_product_attention, F.linear} & {*before}
        raise KeyboardInterrupt
    assert (F.dropout, F.scaled_dot_product_attention, F.linear) == before


def test_a_run_takes_it_for_what_is_not_adapted(
    base: Path, tmp_path: Path, by_onednn: list[tuple[int, ...]]
) -> None:
    few = ["training.max_steps=1", "adapter.targets=[Q]"]
    train(recipe("mrpc", tmp_path, base, *few), tmp_path / "run")
    frozen = [size for size in by_onednn if size[-2:] == (16, 36)]  # into the feed-forward
    assert frozen, sorted(set(by_onednn))
