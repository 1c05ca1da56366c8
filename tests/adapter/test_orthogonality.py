"""The orthogonality term: both forms, for layers of several shapes together."""

import pytest
import torch
from torch import nn

from dcft_cli import DCFTConfig, adapter_layers, inject, orthogonality
from dcft_cli.adapter.adapter import DCFTAdapter
from tests.small import SmallExperts, adapt


def layers(rank: int, init: str = "normal") -> list[DCFTAdapter]:
    torch.manual_seed(0)
    sizes = [(12, 20), (20, 12), (12, 12), (30, 12)]
    model = nn.Sequential(*(nn.Linear(i, o) for i, o in sizes))
    inject(model, DCFTConfig(kernel_size=3, rank=rank, init=init, targets=["*"]))
    found = list(adapter_layers(model).values())
    for layer in found:
        layer.double()
    return found


def grams(layer: DCFTAdapter) -> list[torch.Tensor]:
    return [layer.A @ layer.A.T, layer.B.T @ layer.B]


@pytest.mark.parametrize("rank", [1, 3])
def test_mean_norm_is_the_mean_over_all_factors(rank: int) -> None:
    adapters = layers(rank)
    identity = torch.eye(rank, dtype=torch.float64)
    norms = [torch.linalg.norm(g - identity) for layer in adapters for g in grams(layer)]
    torch.testing.assert_close(orthogonality(adapters), torch.stack(norms).mean())


@pytest.mark.parametrize("rank", [1, 3])
def test_squared_has_the_gradient_of_equation_4(rank: int) -> None:
    adapters = layers(rank)
    loss = torch.zeros((), dtype=torch.float64)
    for layer in adapters:
        for large in (layer.A.T @ layer.A, layer.B @ layer.B.T):
            loss = loss + (large - torch.eye(len(large), dtype=torch.float64)).square().sum()
    factors = [f for layer in adapters for f in (layer.A, layer.B)]
    expected = torch.autograd.grad(loss, factors)
    found = torch.autograd.grad(orthogonality(adapters, "squared"), factors)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("form", ["mean_norm", "squared"])
def test_zero_start_is_orthonormal_and_its_gradient_finite(form: str) -> None:
    adapters = layers(2, init="zero")
    with torch.no_grad():
        adapters[0].A.copy_(torch.eye(2, adapters[0].A.shape[1]))  # exactly orthonormal
    term = orthogonality(adapters, form)
    assert term < 1e-5
    term.backward()
    assert all(p.grad.isfinite().all() for layer in adapters for p in (layer.A, layer.B))


@pytest.mark.parametrize("form", ["mean_norm", "squared"])
def test_a_stack_counts_as_the_adapters_it_is_made_of(form: str) -> None:
    """Values and gradients, next to a single adapter of other shapes."""
    stack = adapt(SmallExperts(), "*", rank=2)
    (single,) = layers(2)[:1]
    (experts,) = adapter_layers(stack).values()
    experts.double()
    ones = []
    for number in range(3):
        model = nn.Sequential(nn.Linear(6, 10))
        (one,) = adapter_layers(adapt(model, "*", rank=2)).values()
        one.double()
        with torch.no_grad():
            for letter in "ABC":
                getattr(one, letter).copy_(getattr(experts, letter)[number])
        ones.append(one)

    term, expected = orthogonality([experts, single], form), orthogonality([*ones, single], form)
    torch.testing.assert_close(term, expected)
    gradients = torch.autograd.grad(term, [experts.A, experts.B])
    for number, one in enumerate(ones):
        for found, factor in zip(gradients, (one.A, one.B), strict=True):
            (wanted,) = torch.autograd.grad(expected, factor, retain_graph=True)
            torch.testing.assert_close(found[number], wanted)
