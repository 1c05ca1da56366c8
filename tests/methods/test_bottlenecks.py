"""Houlsby's and Pfeiffer's adapters against their formulas."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from dcft_cli.errors import MergeError, TargetError
from dcft_cli.methods.bottleneck import Bottleneck
from tests.architectures.tiny import tiny_model as tiny_architecture
from tests.families import tiny_model, tokens
from tests.methods.attached import attach, logits, model_of, perturb

METHODS = ("houlsby", "pfeiffer")
FAMILIES = ("bert", "deberta-v2", "roberta", "distilbert", "mpnet", "modernbert")


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def change(bottleneck: Bottleneck, x: Tensor, activation: nn.Module) -> Tensor:
    """W_up act(W_down x + b_down) + b_up, by matrices."""
    down, up = bottleneck.down, bottleneck.up
    return activation(x @ down.weight.T + down.bias) @ up.weight.T + up.bias


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_starts_near_the_base(method: str, family: str) -> None:
    model, inputs = model_of(family).double(), tokens()
    before = logits(model, **inputs)
    attached = attach(method, model, bottleneck=3)
    model.double()
    after = logits(model, **inputs)
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, before, atol=0.02, rtol=0)
    with torch.no_grad():
        for name, parameter in attached.parameters().items():
            assert parameter.abs().max() <= (0 if name.endswith("bias") else 0.02)
            if ".up." in name:
                parameter.zero_()
    torch.testing.assert_close(logits(model, **inputs), before, atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "roberta"])
def test_houlsby_formula(family: str) -> None:
    model = model_of(family)
    layer = model.base_model.encoder.layer[0]
    attention, output = deepcopy(layer.attention.output), deepcopy(layer.output)
    perturb(attach("houlsby", model, bottleneck=3))
    model.double()
    for base, adapted, width in (
        (attention, layer.attention.output, 16),
        (output, layer.output, 36),
    ):
        h, x = random(2, 5, width), random(2, 5, 16)
        f = base.double().dense(h)
        expected = base.LayerNorm(f + change(adapted.dropout.bottleneck, f, nn.GELU()) + x)
        torch.testing.assert_close(adapted(h, x), expected)


def test_houlsby_reads_what_the_dropout_leaves() -> None:
    model = tiny_model("bert", hidden_dropout_prob=0.5)
    output = model.bert.encoder.layer[0].output
    base = deepcopy(output).double().train()
    perturb(attach("houlsby", model, bottleneck=3))
    model.double().train()
    h, x = random(2, 5, 36), random(2, 5, 16)
    torch.manual_seed(0)
    f = base.dropout(base.dense(h))
    torch.manual_seed(0)
    expected = base.LayerNorm(f + change(output.dropout.bottleneck, f, nn.GELU()) + x)
    torch.testing.assert_close(output(h, x), expected)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "roberta"])
def test_pfeiffer_formula(family: str) -> None:
    model = model_of(family)
    output = model.base_model.encoder.layer[0].output
    base = deepcopy(output).double()
    perturb(attach("pfeiffer", model, bottleneck=3))
    model.double()
    h, x = random(2, 5, 36), random(2, 5, 16)
    f = base.dense(h)
    u = base.LayerNorm(f + x)
    expected = base.LayerNorm(f + change(output.LayerNorm.bottleneck, u, nn.ReLU()) + x)
    torch.testing.assert_close(output(h, x), expected)


def test_pfeiffer_formula_of_a_pre_ln_layer() -> None:
    model, inputs = model_of("modernbert"), tokens()
    layers = model.model.layers
    perturb(attach("pfeiffer", model, bottleneck=3))
    model.double()
    seen: list[Tensor] = []
    for module in (layers[0].base, layers[0]):
        module.register_forward_hook(lambda module, args, output: seen.append(output))
    logits(model, **inputs)
    u, y = seen
    torch.testing.assert_close(y, u + change(layers[0].bottleneck, u, nn.ReLU()))


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_base(method: str) -> None:
    model = tiny_model().to(torch.bfloat16)
    attached = attach(method, model, bottleneck=3)
    assert {p.dtype for p in attached.parameters().values()} == {torch.float32}
    assert model.bert(**tokens()).last_hidden_state.dtype == torch.bfloat16


@pytest.mark.parametrize("method", METHODS)
def test_no_merging(method: str) -> None:
    attached = attach(method, tiny_model())
    with pytest.raises(MergeError, match=f"{method} adds layers of its own") as e:
        attached.merge()
    assert "dcft predict" in e.value.hint


def test_a_model_without_the_place() -> None:
    with pytest.raises(TargetError, match="pfeiffer cannot go into models of type bart"):
        attach("pfeiffer", tiny_architecture("bart"))
