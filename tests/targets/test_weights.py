"""Weights as matrices, however they are stored; and what is no such weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from dcft_cli.targets.weights import Matrix, find_matrices
from tests.architectures.tiny import tiny_model
from tests.small import Packed, SmallExperts, TransposedExperts, linear


class WithParameters(nn.Module):
    """A module that reads parameters of its own."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))


def only(module: nn.Module) -> Matrix:
    (matrix,) = find_matrices(nn.ModuleDict({"it": module}))
    return matrix


def shape(matrix: Matrix) -> tuple[int | None, int, int]:
    return matrix.count, matrix.out_features, matrix.in_features


@pytest.mark.parametrize(("module", "transposed"), [(linear(5, 3), False), (Conv1D(5, 3), True)])
def test_a_linear_layer(module: nn.Module, transposed: bool) -> None:
    matrix = only(module)
    assert shape(matrix) == (None, 5, 3)
    assert (matrix.name, matrix.parameter_name) == ("it", "it.weight")
    assert (matrix.called, matrix.transposed) == (True, transposed)
    assert matrix.module is module and matrix.parameter is module.weight


def test_a_model_that_is_a_layer_itself() -> None:
    """Nothing could stand in its place; it has no name either."""
    for module in (linear(5, 3), Conv1D(5, 3)):
        (matrix,) = find_matrices(module)
        assert (matrix.name, matrix.called) == ("weight", False)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_over_one_token(groups: int) -> None:
    matrix = only(nn.Conv1d(6, 8, 1, groups=groups))
    assert shape(matrix) == (None, 8, 6 // groups)
    assert not matrix.called


@pytest.mark.parametrize(
    ("experts", "transposed"), [(SmallExperts, False), (TransposedExperts, True)]
)
def test_a_stack_of_experts(experts: type[SmallExperts], transposed: bool) -> None:
    matrix = only(experts())
    assert shape(matrix) == (3, 10, 6)
    assert (matrix.name, matrix.transposed, matrix.called) == ("it.up_proj", transposed, False)


def test_parameters_that_a_module_reads() -> None:
    module = WithParameters(q=(6, 2, 3), in_proj_weight=(9, 3), scale=(6,), kernel=(2, 2, 2, 2))
    module.register_parameter("table_bias", nn.Parameter(torch.zeros(4, 4)))
    module.register_parameter("codes", nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), False))
    found = find_matrices(nn.ModuleDict({"attn": module}))
    assert {m.name: shape(m) for m in found} == {
        "attn.q": (None, 6, 6),
        "attn.in_proj_weight": (None, 9, 3),
    }
    assert {m.parameter_name for m in find_matrices(module)} == {"q", "in_proj_weight"}


@pytest.mark.parametrize(
    "module",
    [
        nn.Embedding(4, 4),
        nn.LayerNorm(4),
        nn.Conv1d(4, 4, 3),
        nn.Conv2d(4, 4, 1),
        nn.ReLU(),
        nn.utils.parametrizations.weight_norm(nn.Embedding(4, 4)),
    ],
)
def test_what_is_no_matrix(module: nn.Module) -> None:
    assert not [m for m in find_matrices(module) if "parametrizations" not in m.path]


def test_a_layer_whose_weight_is_computed_does_not_disturb() -> None:
    """Weight normalisation leaves a linear layer without a weight of its own."""
    normed = nn.utils.parametrizations.weight_norm(linear(4, 4))
    names = [matrix.name for matrix in find_matrices(nn.ModuleList([normed, linear(4, 4)]))]
    assert "0" not in names and "1" in names


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_a_packed_layer_knows_its_sizes(dtype: torch.dtype) -> None:
    matrix = only(Packed(linear(5, 3), dtype))
    assert matrix.parameter.shape == (15, 1)
    assert shape(matrix) == (None, 5, 3)
    assert matrix.is_quantized
    assert not only(linear(5, 3).bfloat16()).is_quantized


@pytest.mark.parametrize("model_type", ["gemma3", "qwen3_5", "modernvbert", "t5gemma2"])
def test_parts_that_read_no_text_are_left_out(model_type: str) -> None:
    model = tiny_model(model_type)
    names = [matrix.path for matrix in find_matrices(model)]
    blind = [
        name
        for name, module in model.named_modules()
        if "text" not in getattr(module, "input_modalities", "text")
    ]
    assert blind and names
    assert not any(name.startswith(f"{tower}.") for name in names for tower in blind)


def test_a_module_in_two_places_is_found_once() -> None:
    module = linear(4, 4)
    assert [m.name for m in find_matrices(nn.ModuleDict({"a": module, "b": module}))] == ["a"]


@given(
    count=st.none() | st.integers(1, 3),
    out=st.integers(1, 5),
    into=st.integers(1, 5),
    transposed=st.booleans(),
)
def test_as_stored_is_the_way_back(
    count: int | None, out: int, into: int, transposed: bool
) -> None:
    stack = () if count is None else (count,)
    weight = torch.arange(float(out * into * (count or 1))).reshape(*stack, out, into)
    stored = nn.Parameter(weight.mT.contiguous() if transposed else weight)
    owner = nn.Module()
    owner.w = nn.Parameter(stored)
    matrix = Matrix("it", owner, "w", out, into, count=count, transposed=transposed)
    assert torch.equal(matrix.as_stored(weight), stored)


@given(heads=st.integers(1, 3), size=st.integers(1, 3), width=st.integers(1, 4))
def test_a_weight_of_heads_is_flattened_and_folded_back(heads: int, size: int, width: int) -> None:
    matrix = only(WithParameters(q=(width, heads, size)))
    assert shape(matrix) == (None, width, heads * size)
    dW = torch.arange(float(width * heads * size)).reshape(width, heads * size)
    assert torch.equal(matrix.as_stored(dW).flatten(1), dW)
    assert matrix.as_stored(dW).shape == (width, heads, size)
