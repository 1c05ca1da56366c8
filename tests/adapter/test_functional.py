"""The identities of DCFT's delta_weight, in float64, values and gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dcft_cli.adapter.functional import delta_weight, low_rank_factors, place_windows, sum_windows
from dcft_cli.adapter.sizes import subspace_size
from tests.small import by_definition

TOLERANCE = {"rtol": 1e-11, "atol": 1e-11}


@st.composite
def adapters(draw: st.DrawFn) -> dict:
    """Sizes, settings and a seed; sizes that the kernel does not divide, or exceeds, included."""
    d = draw(st.integers(1, 6))
    return {
        "d": d,
        "stride": draw(st.integers(1, d)),
        "k": draw(st.integers(1, 3)),
        "scale": draw(st.floats(0.25, 8)),
        "out_features": draw(st.integers(1, 24)),
        "in_features": draw(st.integers(1, 24)),
        "seed": draw(st.integers(0, 1000)),
    }


def factors(case: dict) -> list[Tensor]:
    generator = torch.Generator().manual_seed(case["seed"])
    p = subspace_size(case["in_features"], case["d"], case["stride"])
    q = subspace_size(case["out_features"], case["d"], case["stride"])
    shapes = ((case["k"], p), (q, case["k"]), (case["d"], case["d"]))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]


def sizes(case: dict) -> dict:
    return {name: case[name] for name in ("stride", "scale", "out_features", "in_features")}


def assert_same(ours: Tensor, oracle: Tensor, inputs: list[Tensor], seed: int) -> None:
    """Equal values, and equal gradients of a random linear functional."""
    torch.testing.assert_close(ours, oracle, **TOLERANCE)
    weights = torch.randn(
        ours.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    gradients = zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((oracle * weights).sum(), inputs),
        strict=True,
    )
    for mine, theirs in gradients:
        torch.testing.assert_close(mine, theirs, **TOLERANCE)


@given(case=adapters())
@settings(deadline=None, max_examples=200)
def test_delta_weight_is_the_cropped_transposed_convolution(case: dict) -> None:
    A, B, C = factors(case)
    dW = delta_weight(A, B, C, **sizes(case))
    assert dW.shape == (case["out_features"], case["in_features"])
    assert_same(dW, by_definition(A, B, C, **sizes(case)), [A, B, C], case["seed"])


@given(case=adapters(), q=st.integers(1, 4), p=st.integers(1, 4))
@settings(deadline=None)
def test_delta_weight_is_a_kronecker_product_at_equal_stride(case: dict, q: int, p: int) -> None:
    d = case["d"]
    case |= {"stride": d, "out_features": q * d, "in_features": p * d}
    A, B, C = factors(case)
    oracle = case["scale"] * torch.kron(B @ A, C)
    assert_same(delta_weight(A, B, C, **sizes(case)), oracle, [A, B, C], case["seed"])


@given(case=adapters())
@settings(deadline=None)
def test_low_rank_factors_have_rank_k_d_and_multiply_to_delta_weight(case: dict) -> None:
    A, B, C = factors(case)
    down, up = low_rank_factors(A, B, C, **sizes(case))
    assert down.shape == (case["k"] * case["d"], case["in_features"])
    assert up.shape == (case["out_features"], case["k"] * case["d"])
    assert_same(up @ down, by_definition(A, B, C, **sizes(case)), [A, B, C], case["seed"])


@given(case=adapters())
@settings(deadline=None)
def test_sum_windows_is_the_adjoint_of_place_windows(case: dict) -> None:
    A, _, _ = factors(case)
    d, stride, n = case["d"], case["stride"], A.shape[-1]
    placed = place_windows(A, d, stride, case["in_features"])
    other = torch.randn_like(placed)
    product = (A * sum_windows(other, stride, n)).sum()
    torch.testing.assert_close((placed * other).sum(), product)


@given(case=adapters(), lead=st.lists(st.integers(1, 3), min_size=1, max_size=2))
@settings(deadline=None)
def test_a_stack_is_its_single_computations(case: dict, lead: list[int]) -> None:
    """Of one or two leading dimensions: values and gradients of every matrix."""
    singles = [factors(case | {"seed": case["seed"] + n}) for n in range(math.prod(lead))]
    stacked = [
        torch.stack([single[letter] for single in singles]).unflatten(0, lead)
        for letter in range(3)
    ]
    inputs = [factor for single in singles for factor in single]
    each = torch.stack([by_definition(*single, **sizes(case)) for single in singles])
    oracle = each.unflatten(0, lead)
    down, up = low_rank_factors(*stacked, **sizes(case))
    assert down.shape == (*lead, case["k"] * case["d"], case["in_features"])
    assert up.shape == (*lead, case["out_features"], case["k"] * case["d"])
    assert_same(delta_weight(*stacked, **sizes(case)), oracle, inputs, case["seed"])
    placed = place_windows(stacked[0], case["d"], case["stride"], case["in_features"])
    single = place_windows(singles[-1][0], case["d"], case["stride"], case["in_features"])
    assert placed.flatten(0, len(lead) - 1)[-1].equal(single)


def test_place_windows_copies_each_entry_to_its_window() -> None:
    placed = place_windows(torch.tensor([[1.0, 2.0, 3.0]]), kernel_size=3, stride=2, size=6)
    expected = [[1, 0, 2, 0, 3, 0], [0, 1, 0, 2, 0, 3], [0, 0, 1, 0, 2, 0]]
    assert placed.tolist() == [expected]


@given(case=adapters())
def test_subspace_size_covers_and_wastes_no_window(case: dict) -> None:
    size, d, s = case["in_features"], case["d"], case["stride"]
    p = subspace_size(size, d, s)
    assert (p - 1) * s + d >= size
    assert p == 1 or (p - 2) * s + d < size


@pytest.mark.parametrize(("size", "d"), [(768, 8), (768, 6), (3072, 12), (1024, 2)])
def test_divisible_sizes_follow_equation_10(size: int, d: int) -> None:
    assert subspace_size(size, d, d) == math.ceil(size / d) == size // d
