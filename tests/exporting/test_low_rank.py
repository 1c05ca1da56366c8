"""LoRA matrices of an adapter: the same dW, at the rank that it has."""

import torch
from torch import nn

from dcft_cli import adapter_layers
from dcft_cli.adapter.inject import adapted_weights
from dcft_cli.exporting.low_rank import lora_matrices
from tests.small import Fused, adapt, delta_of, linear


def adapted_linear(**settings: object) -> nn.Module:
    return adapt(nn.Sequential(linear(10, 7)), "0", **settings)


def rank_and_error(model: nn.Module) -> tuple[int, float]:
    """The rank of lora_B lora_A, and its distance from dW."""
    (weight,) = adapted_weights(model)
    expected = weight.delta_weight(torch.float64).detach()
    down, up = lora_matrices(weight)
    return len(down), float((up @ down - expected).abs().max())


def test_the_product_is_dw_at_rank_k_times_d() -> None:
    for d, stride, k in ((3, 3, 1), (2, 2, 2), (3, 1, 1)):
        model = adapted_linear(kernel_size=d, stride=stride, rank=k, scale=2.5)
        rank, error = rank_and_error(model)
        assert rank == k * d
        assert error < 1e-12


def test_a_kernel_of_lower_rank_gives_a_lower_rank() -> None:
    model = adapted_linear(kernel_size=3)
    (adapter,) = adapter_layers(model).values()
    with torch.no_grad():
        adapter.C[:, 1] = 0
    assert rank_and_error(model) < (3, 1e-7)
    with torch.no_grad():
        adapter.C.copy_(torch.outer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.5, 1.0])))
    rank, error = rank_and_error(model)
    assert (rank, error < 1e-7) == (1, True)


def test_an_untrained_adapter_has_rank_one_and_is_zero() -> None:
    model = adapted_linear(kernel_size=3)
    (adapter,) = adapter_layers(model).values()
    nn.init.zeros_(adapter.C)
    assert rank_and_error(model) == (1, 0.0)


def test_a_rank_above_the_sides_of_the_weight_is_reduced() -> None:
    rank, error = rank_and_error(adapted_linear(kernel_size=4, rank=3))
    assert rank <= 7
    assert error < 1e-7


def test_blocks_of_one_weight_add_their_ranks() -> None:
    model = adapt(nn.ModuleDict({"attn": Fused()}), "Q", "V")
    (weight,) = adapted_weights(model)
    down, up = lora_matrices(weight)
    assert down.shape == (6, 6)
    query, value = (delta_of(adapter) for adapter in weight.dcft_adapters())
    found = up @ down
    assert torch.allclose(found[:6], query, atol=1e-9)
    assert torch.allclose(found[12:], value, atol=1e-9)
    assert not found[6:12].any()
