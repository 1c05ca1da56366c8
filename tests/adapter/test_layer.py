"""Adapters in a model: two thin products where a layer is called, W + dW where it is read."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from dcft_cli import DCFTConfig, adapter_layers, inject, load_adapter, merge, save_adapter
from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.layer import DCFTLinear, DCFTParametrization
from dcft_cli.errors import ModelError
from dcft_cli.targets.weights import Matrix
from tests.architectures.tiny import tiny_model
from tests.small import Fused, Packed, SmallExperts, adapt, delta_of, linear, perturb

EXACT = {"rtol": 1e-11, "atol": 1e-11}
Way = Callable[[Tensor], Tensor]  # from a weight as it is stored to (..., out, in)


def randomize(layer: DCFTLinear) -> DCFTLinear:
    for factor in layer.adapters.parameters():
        nn.init.normal_(factor, std=0.5)
    return layer


def only(model: nn.Module) -> DCFTAdapter:
    (adapter,) = adapter_layers(model).values()
    return adapter


@given(
    sizes=st.tuples(*[st.integers(1, 14)] * 4),
    d=st.integers(1, 5),
    step=st.integers(0, 4),
    rank=st.integers(1, 3),
    transposed=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_a_call_adds_the_increment_without_forming_it(
    sizes: tuple[int, int, int, int], d: int, step: int, rank: int, transposed: bool
) -> None:
    """One adapter, or two of different rows and none for those between them."""
    into, *rows = sizes
    out = sum(rows)
    module = Conv1D(out, into) if transposed else nn.Linear(into, out)
    config = DCFTConfig(kernel_size=d, stride=d - step % d, rank=rank, scale=1.5)
    for blocks in ([None], [(0, rows[0]), (out - rows[-1], out)]):
        adapters = [DCFTAdapter(into, out, config, rows=block) for block in blocks]
        layer = randomize(DCFTLinear(module, adapters)).double()
        expected = module.weight.T.clone() if transposed else module.weight.clone()
        for adapter, block in zip(adapters, blocks, strict=True):
            first, end = block or (0, out)
            expected[first:end] += delta_of(adapter)
        x = torch.randn(2, 3, into, dtype=torch.float64)
        torch.testing.assert_close(layer(x), F.linear(x, expected, module.bias), **EXACT)
        assert layer.weight is module.weight


@pytest.mark.parametrize("init", ["normal", "zero"])
def test_start(init: str) -> None:
    torch.manual_seed(0)
    adapter = DCFTAdapter(6, 10, DCFTConfig(kernel_size=2, rank=2, init=init), count=3)
    assert {n: tuple(p.shape) for n, p in adapter.named_parameters()} == {
        "A": (3, 2, 3),
        "B": (3, 5, 2),
        "C": (3, 2, 2),
    }
    assert (adapter.delta_weight().abs().max() == 0) == (init == "zero")
    for one, other in ((0, 1), (1, 2)):
        assert not adapter.A[one].equal(adapter.A[other])  # each of a stack drawn for itself
    if init == "zero":
        for factor in (adapter.A, adapter.B.mT):
            eye = torch.eye(2).expand(3, 2, 2)
            torch.testing.assert_close(factor @ factor.mT, eye, rtol=0, atol=1e-6)


WEIGHTS: list[tuple[str, str, str, Way]] = [
    ("bert", "bert.encoder.layer.0.output.dense", "weight", lambda w: w),
    ("gpt2", "transformer.h.0.mlp.c_fc", "weight", lambda w: w.T),
    ("gpt2", "transformer.h.0.attn.c_attn.K", "weight", lambda w: w.T[32:64]),
    ("phi3", "model.layers.0.self_attn.qkv_proj.V", "weight", lambda w: w[48:]),
    ("squeezebert", "transformer.encoder.layers.0.attention.query", "weight", lambda w: w[..., 0]),
    ("xlnet", "transformer.layer.0.rel_attn.q", "q", lambda w: w.flatten(1)),
    ("mixtral", "model.layers.0.mlp.experts.gate_up_proj", "gate_up_proj", lambda w: w),
    ("gpt_oss", "model.layers.0.mlp.experts.down_proj", "down_proj", lambda w: w.mT),
]


@pytest.mark.parametrize(("model_type", "name", "tensor", "as_matrix"), WEIGHTS)
def test_merging_adds_the_increment_to_the_weight_and_nothing_else(
    model_type: str, name: str, tensor: str, as_matrix: Way
) -> None:
    model = tiny_model(model_type).double()
    owner = name.rpartition(".")[0] if name[-1] in "KV" or tensor != "weight" else name
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    adapt(model, name, scale=2.0)
    assert adapter_layers(model).keys() == {name}
    dW = delta_of(only(model))
    rows = slice(*only(model).rows)
    ours = only(model).delta_weight().double()[..., rows, :]
    torch.testing.assert_close(ours, dW, rtol=0, atol=1e-5)
    after = dict(merge(model).named_parameters())
    changed = f"{owner}.{tensor}"
    assert [n for n in before if not after[n].equal(before[n])] == [changed]
    difference = after[changed].detach() - before[changed]
    torch.testing.assert_close(as_matrix(difference), dW, **EXACT)
    # What lies outside a slice stays as it is.
    torch.testing.assert_close(difference.abs().sum(), dW.abs().sum())


def test_a_model_that_is_a_layer_itself(tmp_path: Path) -> None:
    for make in (lambda: linear(10, 6), SmallExperts, lambda: Conv1D(10, 6)):
        torch.manual_seed(0)
        model = make()
        x, base = torch.randn(4, 6), copy.deepcopy(model)
        adapt(model, "*")
        expected = model(x)
        assert not expected.allclose(base(x))
        load_adapter(base, save_adapter(model, tmp_path))
        assert base(x).equal(expected)
        torch.testing.assert_close(merge(model)(x), expected, rtol=0, atol=1e-4)
        assert type(model) is type(make())


@pytest.mark.parametrize("module", [SmallExperts(), nn.Conv1d(8, 6, 1, groups=2), Fused()])
def test_a_model_answers_as_its_merged_self(module: nn.Module) -> None:
    model = adapt(nn.ModuleDict({"attn": module}), "attn.*" if len([*module.children()]) else "*")
    x = torch.randn(4, 8, 5) if isinstance(module, nn.Conv1d) else torch.randn(4, 5, 6)
    expected = module(x)
    merge(model)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-4)


# Weights that are read


def test_a_wrapped_layer_has_the_attributes_of_its_base() -> None:
    """Models such as T5 read the type of a weight at every call: no dW is formed for that."""
    layer = adapt(nn.ModuleDict({"it": linear(10, 6)}), "it")["it"]
    assert layer.weight is layer.base.weight and layer.bias is layer.base.bias
    assert layer.in_features == 6
    with pytest.raises(AttributeError, match="no_such"):
        _ = layer.no_such


@pytest.mark.parametrize("training", [False, True])
def test_attention_of_torch_reads_the_weight_of_its_output_layer(training: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).train(training)
    model = nn.ModuleDict({"self_attn": attention})
    x = torch.randn(2, 3, 8)
    plain = attention(x, x, x)[0]
    adapt(model, "Q", "V", "O")
    expected, _ = attention(x, x, x)
    assert (expected - plain).abs().max() > 1e-2
    expected.sum().backward()
    for adapter in adapter_layers(model).values():
        assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())
    with torch.no_grad():
        torch.testing.assert_close(attention(x, x, x)[0], expected, rtol=0, atol=1e-5)
        merge(model)
        torch.testing.assert_close(attention(x, x, x)[0], expected, rtol=0, atol=1e-5)
    assert type(attention) is nn.MultiheadAttention


def test_the_fast_path_of_torchs_encoder_sees_the_adapters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under `no_grad` it calls no layer at all: it hands their weights to one fused function."""
    model = nn.ModuleDict({"layer": nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()})
    x = torch.randn(2, 3, 8)
    plain = model["layer"](x)
    adapt(model, "Q", "K", "V", "O", "linear?")
    assert len(adapter_layers(model)) == 6
    expected = model["layer"](x)  # slow: gradients are wanted
    assert (expected - plain).abs().max() > 1e-2
    fused, calls = torch._transformer_encoder_layer_fwd, []
    monkeypatch.setattr(
        torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(a) or fused(*a)
    )
    with torch.no_grad():
        torch.testing.assert_close(model["layer"](x), expected, rtol=0, atol=1e-5)
        assert len(calls) == 1
        merge(model)
        torch.testing.assert_close(model["layer"](x), expected, rtol=0, atol=1e-5)
        assert len(calls) == 2


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_packed_weight_trains_but_is_not_merged(dtype: torch.dtype) -> None:
    model = nn.ModuleDict({"plain": linear(6, 6), "packed": Packed(linear(10, 6), dtype)})
    packed, x = model["packed"], torch.randn(4, 6)
    before = packed(x)
    inject(model, DCFTConfig(kernel_size=3, targets=["*"]))
    perturb(model)
    layer, adapter = model["packed"], adapter_layers(model)["packed"]
    assert layer.weight is packed.weight
    expected = before + x @ adapter.delta_weight().T
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    layer(x).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())

    plain = model["plain"].base.weight.clone()
    with pytest.raises(ModelError, match="weight of packed is quantized") as caught:
        merge(model)
    assert "full precision" in caught.value.hint
    assert adapter_layers(model).keys() == {"plain", "packed"}
    assert model["plain"].base.weight.equal(plain)
    assert not any(p.requires_grad for p in packed.parameters())


def test_a_half_precision_base_trains_float32_factors() -> None:
    for module, name in ((linear(20, 12).bfloat16(), "it"), (SmallExperts().bfloat16(), "*")):
        model = adapt(nn.ModuleDict({"it": module}), name)
        carriers = [m for m in model.modules() if isinstance(m, DCFTLinear | DCFTParametrization)]
        assert len(carriers) == 1
        (matrix,) = {carrier.matrix for carrier in carriers}
        assert isinstance(matrix, Matrix)
        out = model["it"](torch.randn(3, matrix.in_features, dtype=torch.bfloat16))
        out.float().sum().backward()
        assert out.dtype == torch.bfloat16
        assert only(model).A.dtype == only(model).A.grad.dtype == torch.float32
        assert merge(model)["it"](torch.ones(matrix.in_features).bfloat16()).isfinite().all()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_weight_that_is_read_gets_a_sum_in_float32_in_mixed_precision(compiled: bool) -> None:
    model = adapt(nn.ModuleDict({"attn": SmallExperts()}), "attn.*")
    (carrier,) = (m for m in model.modules() if isinstance(m, DCFTParametrization))
    stored = carrier.matrix.parameter.detach()
    expected = carrier(stored)
    compute = torch.compile(carrier, backend="eager") if compiled else carrier
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = compute(stored)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in only(model).parameters())


def test_an_increment_on_the_meta_device_has_a_shape() -> None:
    adapter = DCFTAdapter(6, 10, DCFTConfig(kernel_size=2), count=3, device=torch.device("meta"))
    assert adapter.delta_weight().shape == (3, 10, 6)
