"""Injection, removal and folding, on tiny models of every family."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dcft_cli import DCFTConfig, adapter_layers, inject, merge, remove_adapters
from dcft_cli.adapter.inject import head_parameters
from dcft_cli.errors import ModelError, TargetError
from tests.families import FAMILIES, tiny_model, tokens

ALL = ["Q", "K", "V", "O", "FFN"]


def adapted(family: str = "bert", **settings: object) -> nn.Module:
    """A tiny model with adapters that were moved away from their start."""
    model = inject(tiny_model(family), DCFTConfig(kernel_size=5, **settings))
    torch.manual_seed(1)
    for layer in adapter_layers(model).values():
        for factor in (layer.A, layer.B, layer.C):
            nn.init.normal_(factor, std=0.3)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_role_is_found_once_per_layer(family: str) -> None:
    model = inject(tiny_model(family), DCFTConfig(targets=ALL))
    roles = [layer.role for layer in adapter_layers(model).values()]
    assert sorted(roles) == sorted(["Q", "K", "V", "O", "FFN_IN", "FFN_OUT"] * 2)


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
    ours = {f"{name}.{factor}" for name in layers for factor in "ABC"}
    assert trained == ours | head_parameters(model).keys()


@pytest.mark.parametrize("stride", [None, 1, 3])
def test_merging_keeps_the_outputs_and_can_be_repeated(stride: int | None) -> None:
    model, batch = adapted(stride=stride, rank=2, scale=2.0), tokens()
    expected = model(**batch).logits
    merge(merge(model))
    assert not adapter_layers(model)
    torch.testing.assert_close(model(**batch).logits, expected, rtol=0, atol=1e-5)


def test_layer_is_the_frozen_product_plus_the_increment() -> None:
    model = adapted(rank=2)
    layer = next(iter(adapter_layers(model).values()))
    x = torch.randn(2, 3, layer.in_features)
    expected = nn.functional.linear(x, layer.weight + layer.increment(), layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


def test_half_precision_base_trains_float32_factors() -> None:
    layer = nn.Sequential(nn.Linear(12, 20).bfloat16())
    inject(layer, DCFTConfig(kernel_size=4, targets=["0"]))
    out = layer(torch.randn(3, 12, dtype=torch.bfloat16))
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert layer[0].A.dtype == layer[0].A.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("targets", "roles"),
    [
        (["Q", "V"], ["Q", "V"]),
        (["O"], ["O"]),
        (["FFN_OUT"], ["FFN_OUT"]),
        (["O", "FFN_OUT"], ["O", "FFN_OUT"]),
        (["FFN"], ["FFN_IN", "FFN_OUT"]),
        (["intermediate.dense"], ["FFN_IN"]),
        (["*.self.*", "K"], ["Q", "K", "V"]),
        (["bert.encoder.layer.0.output.dense"], ["FFN_OUT"]),
    ],
)
def test_targets_by_role_or_pattern(targets: list[str], roles: list[str]) -> None:
    model = inject(tiny_model(), DCFTConfig(targets=targets))
    assert sorted({layer.role for layer in adapter_layers(model).values()}) == sorted(roles)


def test_pattern_reaches_layers_that_no_family_names() -> None:
    model = nn.ModuleDict({"mixer": nn.ModuleList([nn.Linear(6, 4), nn.Linear(4, 4)])})
    inject(model, DCFTConfig(kernel_size=2, targets=["mixer.*"]))
    assert {n: layer.role for n, layer in adapter_layers(model).items()} == {
        "mixer.0": "mixer.*",
        "mixer.1": "mixer.*",
    }


@pytest.mark.parametrize("targets", [["Q", "Z"], ["Z*"], ["q"]])
def test_target_that_matches_nothing_lists_what_there_is(targets: list[str]) -> None:
    model = tiny_model()
    with pytest.raises(TargetError) as caught:
        inject(model, DCFTConfig(targets=targets))
    assert f"`{targets[-1]}`" in caught.value.message
    assert "bert.encoder.layer.*.attention.self.query  16 x 16  (2 layers)" in caught.value.message
    assert "Q, K, V, O" in caught.value.hint
    assert not adapter_layers(model)
    assert all(p.requires_grad for p in model.parameters())


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


def test_a_shared_weight_is_no_target() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    with pytest.raises(TargetError, match=r"weight of 0 is shared: it is 1\.weight too"):
        inject(model, DCFTConfig(kernel_size=2, targets=["0"]))
    twice = nn.ModuleDict({"a": (layer := nn.Linear(6, 6)), "b": layer})
    with pytest.raises(TargetError, match="shared"):
        inject(twice, DCFTConfig(kernel_size=2, targets=["a"]))


@pytest.mark.parametrize("undo", [remove_adapters, merge])
def test_what_injection_froze_learns_again(undo: Callable[[nn.Module], nn.Module]) -> None:
    model = tiny_model()
    frozen_before = ["bert.embeddings.word_embeddings.weight"]
    model.get_parameter(*frozen_before).requires_grad_(False)
    undo(inject(model, DCFTConfig(targets=["Q"])))
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == frozen_before


def test_adapters_are_not_stacked() -> None:
    model = inject(tiny_model(), DCFTConfig())
    with pytest.raises(TargetError, match="already"):
        inject(model, DCFTConfig())


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 0},
        {"rank": 0},
        {"stride": 9},
        {"stride": 0},
        {"scale": 0.0},
        {"scale": float("nan")},
        {"init": "ones"},
        {"targets": []},
        {"targets": "Q"},
    ],
)
def test_impossible_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DCFTConfig(**settings)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, dcft_cli; assert 'torch' not in sys.modules; dcft_cli.inject"
    subprocess.run([sys.executable, "-c", code], check=True)
