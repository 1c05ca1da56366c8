"""Functions of torch that training and scoring compute otherwise on a CPU."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dcft_cli.adapter import dense
from dcft_cli.training.on_cpu import faster_on_cpu
from tests.adapter.small import always
from tests.jobs import recipe, train


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
        F.linear(x, trained.weight[0])  # a vector
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
