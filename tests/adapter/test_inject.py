"""Injection, removal and folding, on tiny models of every family."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dcft_cli import (
    DCFTConfig,
    adapter_layers,
    inject,
    load_adapter,
    merge,
    remove_adapters,
    save_adapter,
)
from dcft_cli.adapter.inject import base_parameters, head_parameters
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.errors import ModelError, TargetError
from tests.architectures.tiny import example
from tests.architectures.tiny import tiny_model as any_tiny_model
from tests.families import FAMILIES, tiny_model, tokens
from tests.small import SmallExperts, adapt, linear


def adapted(family: str = "bert", **settings: object) -> nn.Module:
    """A tiny model with adapters that were moved away from their start."""
    model = inject(tiny_model(family), DCFTConfig(kernel_size=5, **settings))
    torch.manual_seed(1)
    for layer in adapter_layers(model).values():
        for factor in (layer.A, layer.B, layer.C):
            nn.init.normal_(factor, std=0.3)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_start_is_the_base_and_removal_gives_it_back(family: str) -> None:
    model, batch = tiny_model(family), tokens()
    untouched = {name: p.clone() for name, p in model.state_dict().items()}
    expected = model(**batch).logits
    inject(model, DCFTConfig(kernel_size=4, init="zero"))
    assert torch.equal(model(**batch).logits, expected)
    for layer in adapter_layers(model).values():
        nn.init.normal_(layer.C)
    assert not torch.allclose(model(**batch).logits, expected)
    remove_adapters(model)
    assert torch.equal(model(**batch).logits, expected)
    assert model.state_dict().keys() == untouched.keys()
    assert all(torch.equal(p, untouched[name]) for name, p in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_factor_gets_a_gradient_and_nothing_frozen_does(family: str) -> None:
    model = adapted(family)
    model(**tokens(), labels=torch.tensor([0, 1, 0])).loss.backward()
    layers = adapter_layers(model)
    for name, layer in layers.items():
        for factor in (layer.A, layer.B, layer.C):
            assert factor.grad is not None and factor.grad.abs().max() > 0, name
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    ours = {f"{name}.adapters.0.{factor}" for name in layers for factor in "ABC"}
    assert trained == ours | head_parameters(model).keys()


@pytest.mark.parametrize("stride", [None, 1, 3])
def test_merging_keeps_the_outputs_and_can_be_repeated(stride: int | None) -> None:
    model, batch = adapted(stride=stride, rank=2, scale=2.0), tokens()
    expected = model(**batch).logits
    merge(merge(model))
    assert not adapter_layers(model)
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)


def test_head_is_never_a_target() -> None:
    model = inject(tiny_model("roberta"), DCFTConfig(targets=["*.dense"]))
    assert not any(name.startswith("classifier") for name in adapter_layers(model))
    with pytest.raises(TargetError):
        inject(tiny_model("roberta"), DCFTConfig(targets=["classifier.*"]))


def test_head_may_be_named() -> None:
    names = ["classifier.bias", "bert.pooler.dense.weight"]
    model = inject(tiny_model(), DCFTConfig(), head=names)
    assert sorted(head_parameters(model)) == sorted(names)
    with pytest.raises(ModelError, match="no_such"):
        inject(tiny_model(), DCFTConfig(), head=["no_such"])


def shared(kind: str) -> tuple[nn.Module, list[str]]:
    """A model in which one weight has several places, and targets that name them all."""
    if kind == "module":
        layer = linear(6, 6)
        return nn.ModuleDict({"a": layer, "b": nn.ReLU(), "c": nn.Sequential(layer)}), ["a"]
    if kind == "parameter":
        model = nn.ModuleDict({"a": linear(6, 6, 0), "b": nn.ReLU(), "c": linear(6, 6, 1)})
        model["c"].weight = model["a"].weight
        return model, ["a", "c"]
    experts = nn.ModuleDict({"a": SmallExperts(), "b": linear(6, 10), "c": SmallExperts()})
    experts["c"].up_proj = experts["a"].up_proj
    return experts, ["*.up_proj"]


@pytest.mark.parametrize("kind", ["module", "parameter", "stack"])
def test_a_shared_weight_has_one_adapter(kind: str, tmp_path: Path) -> None:
    model, targets = shared(kind)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    children = [id(module) for module in model.modules()]
    path = save_adapter(adapt(model, *targets), tmp_path)
    (adapter,) = adapter_layers(model).values()
    assert read_adapter(path).adapter_parameters == sum(p.numel() for p in adapter.parameters())

    # It is in both places, and both teach it.
    x = torch.randn(4, 6)
    outputs = [model["a"](x), model["c"](x)]
    for output in outputs:
        (gradient,) = torch.autograd.grad(output.sum(), [adapter.C], retain_graph=True)
        assert gradient.any()
    loaded = load_adapter(shared(kind)[0], path)
    assert [loaded["a"](x).equal(outputs[0]), loaded["c"](x).equal(outputs[1])] == [True, True]

    # It is merged once, and taken out everywhere.
    merged = dict(merge(loaded).named_parameters())
    name = adapter.target.matrix.parameter_name
    torch.testing.assert_close(merged[name] - before[name], adapter.delta_weight())
    for place, output in zip("ac", outputs, strict=True):
        torch.testing.assert_close(loaded[place](x), output, rtol=0, atol=1e-4)
    remove_adapters(model)
    assert [id(module) for module in model.modules()] == children
    assert all(p.equal(before[name]) for name, p in model.named_parameters())


EVERY_KIND = ["bert", "gpt2", "squeezebert", "xlnet", "mixtral", "gpt_oss", "zamba", "jetmoe"]


def everything(model: nn.Module) -> tuple[list[object], dict[str, tuple[int, bool, bytes]]]:
    """Modules in their order with their classes; parameters with what they hold."""
    modules = [(name, id(module), type(module)) for name, module in model.named_modules()]
    parameters = {
        name: (id(p), p.requires_grad, p.detach().numpy().tobytes())
        for name, p in model.named_parameters(remove_duplicate=False)
    }
    return modules, parameters


@pytest.mark.parametrize("model_type", [*EVERY_KIND, "torch"])
def test_removal_gives_back_the_very_same_model(model_type: str) -> None:
    if model_type == "torch":
        model: nn.Module = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        targets = ["Q", "V", "O", "linear?"]
    else:
        model, targets = any_tiny_model(model_type), ["Q", "K", "V", "O", "FFN"]
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    before = everything(model)
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    adapt(model, *targets)
    assert everything(model) != before
    remove_adapters(model)
    assert everything(model) == before
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert not any("Parametrized" in type(module).__name__ for module in model.modules())


def test_an_adapted_model_can_be_copied() -> None:
    model = adapt(nn.ModuleDict({"a": linear(6, 6), "b": SmallExperts()}), "*")
    twin, x = copy.deepcopy(model), torch.randn(2, 6)
    perturbed = {name: twin[name](x) for name in twin}
    merge(twin)
    for name in twin:
        torch.testing.assert_close(twin[name](x), perturbed[name], rtol=0, atol=1e-4)
        torch.testing.assert_close(model[name](x), perturbed[name], rtol=0, atol=0)
    assert len(adapter_layers(model)) == 2


def test_names_of_the_base_are_those_without_adapters() -> None:
    for model_type in EVERY_KIND:
        model = any_tiny_model(model_type)
        before = {name: id(p) for name, p in model.named_parameters()}
        adapt(model, "Q", "O", "FFN_OUT")
        assert {name: id(p) for name, p in base_parameters(model).items()} == before


@pytest.mark.parametrize("undo", [remove_adapters, merge])
def test_what_injection_froze_learns_again(undo: Callable[[nn.Module], nn.Module]) -> None:
    model = tiny_model()
    frozen_before = ["bert.embeddings.word_embeddings.weight"]
    model.get_parameter(*frozen_before).requires_grad_(False)
    undo(inject(model, DCFTConfig(targets=["Q"])))
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == frozen_before


@pytest.mark.parametrize("undo", [remove_adapters, merge])
def test_a_model_without_adapters_is_left_as_it_is(
    undo: Callable[[nn.Module], nn.Module],
) -> None:
    model = undo(inject(tiny_model(), DCFTConfig(targets=["Q"])))
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in undo(model).parameters())


def test_adapters_are_not_stacked() -> None:
    model = inject(tiny_model(), DCFTConfig())
    with pytest.raises(TargetError, match="already"):
        inject(model, DCFTConfig())


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_weights_that_were_put_in_place_of_others_are_merged(family: str) -> None:
    """`assign=True` makes other parameters of a model that has its adapters already."""
    model = inject(any_tiny_model(family), DCFTConfig(kernel_size=3, scale=50.0))
    batch = example(family, model.config)
    model.load_state_dict({n: t.clone() for n, t in model.state_dict().items()}, assign=True)
    expected = model(**batch).logits
    torch.testing.assert_close(merge(model)(**batch).logits, expected, rtol=0, atol=1e-5)
