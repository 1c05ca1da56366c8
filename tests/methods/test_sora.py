"""SoRA: its formula, its gates, and what is left of them."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dcft_cli.errors import ModelError, TargetError
from dcft_cli.methods.sora import SoRA, shrunk
from dcft_cli.recipe import AdapterSection
from dcft_cli.recipe.methods import METHODS
from tests.architectures.tiny import tiny_model as tiny_architecture
from tests.families import tiny_model, tokens
from tests.methods.attached import attach, logits, perturb
from tests.small import Packed


def sora(model: nn.Module, **settings: object) -> SoRA:
    method = attach("sora", model, **settings)
    assert isinstance(method, SoRA)
    return method


def test_formula() -> None:
    model = tiny_model()
    layer = model.bert.encoder.layer[0].intermediate.dense
    perturb(sora(model, rank=3, scale=0.5))
    model.double()
    layer, base = model.bert.encoder.layer[0].intermediate.dense, layer
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    g, down, up = layer.gate, layer.down, layer.up
    expected = base(x) + 0.5 * (g * (x @ down.T)) @ up.T
    torch.testing.assert_close(layer(x), expected)
    assert layer.weight is base.weight and layer.in_features == 16


def test_dropout_is_on_the_way_to_the_update_only() -> None:
    model, inputs = tiny_model(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), tokens()
    before = logits(model, **inputs)
    method = sora(model, dropout=0.5)
    model.train()
    assert torch.equal(logits(model, **inputs), before)
    perturb(method)
    assert not torch.equal(logits(model, **inputs), logits(model, **inputs))
    model.eval()
    assert torch.equal(logits(model, **inputs), logits(model, **inputs))


@pytest.mark.parametrize(
    ("gate", "after"),
    [
        (1.0, 0.875), (-1.0, -0.875), (0.375, 0.25), (0.25, 0.125), (-0.25, -0.125),
        # Between the threshold and twice the threshold nothing is left, either.
        (0.1875, 0.0), (-0.1875, 0.0), (0.0625, 0.0), (-0.0625, 0.0), (0.0, 0.0),
        (0.125, 0.125), (-0.125, -0.125),  # the authors' code compares strictly
    ],
)  # fmt: skip
def test_proximal_step(gate: float, after: float) -> None:
    assert shrunk(torch.tensor([gate]), 0.125).item() == after


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8), st.floats(0, 1, width=32))
def test_proximal_step_shrinks(gates: list[float], threshold: float) -> None:
    before = torch.tensor(gates)
    after = shrunk(before, threshold)
    assert (after.abs() <= before.abs()).all()
    assert (after * before >= 0).all()
    assert ((after == 0) | (after.abs() >= threshold)).all()
    if threshold == 0:
        assert torch.equal(after, before)


def test_each_step_shrinks_every_gate_by_the_threshold() -> None:
    method = sora(tiny_model(), gate_threshold=0.01)
    before = [layer.gate.detach().clone() for layer in method.layers()]
    others = deepcopy([layer.down for layer in method.layers()])
    for step in (1, 2, 3):
        method.after_step(step)
    for layer, gates, down in zip(method.layers(), before, others, strict=True):
        kept = layer.gate != 0
        moved = gates[kept].abs() - layer.gate[kept].abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.03), atol=1e-6, rtol=0)
        assert (gates[~kept].abs() < 0.04).all()
        assert torch.equal(layer.down, down)


def test_penalty_is_the_weighted_mean_of_all_gates() -> None:
    method = sora(tiny_model(), gate_penalty=3.0)
    gates = torch.cat([layer.gate for layer in method.layers()])
    penalty = method.penalty()
    assert penalty is not None
    torch.testing.assert_close(penalty, 3.0 * gates.abs().sum() / (8 * 12))
    penalty.backward()
    layer = method.layers()[0]
    torch.testing.assert_close(layer.gate.grad, 3.0 / (8 * 12) * layer.gate.sign())
    assert layer.down.grad is None
    assert sora(tiny_model(), gate_penalty=0.0).penalty() is None


def test_default_settings_close_some_gates_in_some_hundred_steps() -> None:
    model, inputs = tiny_model(), tokens(batch=8)
    method = sora(model)
    labels = torch.arange(8) % 2
    trained = [*method.parameters().values(), *method.head().values()]
    rate = METHODS["sora"].learning_rate
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    first = 0.0
    for step in range(1, 201):
        loss = model(**inputs, labels=labels).loss
        first = first or loss.item()
        penalty = method.penalty()
        assert penalty is not None
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
        method.after_step(step)
    assert loss.item() < 0.7 * first
    facts = method.facts()
    assert facts["gates"] == 8 * 12
    assert 0.5 * facts["gates"] < facts["nonzero_gates"] < 0.95 * facts["gates"]


def test_a_closed_gate_may_open_again() -> None:
    model = tiny_model()
    method = perturb(sora(model))
    layer = method.layers()[0]
    with torch.no_grad():
        layer.gate.zero_()
    model(**tokens()).logits.square().sum().backward()
    assert layer.gate.grad.all()


def test_facts_count_what_open_gates_keep() -> None:
    method = perturb(sora(tiny_model(), rank=4, targets=["Q", "FFN_IN"]))
    first, second = method.layers()[:2]
    with torch.no_grad():
        first.gate[:3] = 0
        second.gate[:] = 0
    assert method.facts() == {
        "gates": 16,
        "nonzero_gates": 9,
        "parameters_left": 1 * 32 + 0 * 52 + 4 * 32 + 4 * 52,
    }


def test_merging_in_half_precision_rounds_once() -> None:
    model = tiny_model().to(torch.bfloat16)
    method = perturb(sora(model))
    layer = method.layers()[0]
    weight = layer.weight.detach().double().clone()
    A, B = layer.factors()
    expected = (weight + 2.0 * B.double() @ A.double()).to(torch.bfloat16)
    method.merge()
    assert torch.equal(layer.base.weight, expected)


def test_quantized_weights_are_not_merged() -> None:
    model = tiny_model()
    attention = model.bert.encoder.layer[0].attention.self
    attention.query = Packed(attention.query, torch.uint8)
    method = sora(model, targets=["Q"])
    with pytest.raises(ModelError, match="query is quantized"):
        method.merge()


def test_weight_change_is_the_median_over_layers() -> None:
    model = tiny_model()
    method = perturb(sora(model, targets=["Q", "K"]))
    ratios = [
        (2.0 * (layer.up * layer.gate) @ layer.down).norm() / layer.weight.norm()
        for layer in method.layers()
    ]
    assert method.weight_change() == pytest.approx(torch.stack(ratios).quantile(0.5).item(), 1e-5)


def test_a_weight_that_is_read_is_an_error() -> None:
    with pytest.raises(TargetError, match=r"sora cannot adapt .* is read by the code around it"):
        attach("sora", tiny_architecture("squeezebert"))


def test_settings() -> None:
    assert AdapterSection(method="sora").model_dump(exclude_defaults=True) == {
        "method": "sora",
        "rank": 8,
        "scale": 2.0,
    }


def test_a_list_of_thresholds_is_a_schedule() -> None:
    settings = AdapterSection(method="sora", gate_threshold=[0.0, 1e-3, 5e-3])
    method = SoRA(settings, seed=0, total_steps=7)
    found = [method.threshold(step) for step in range(1, 9)]
    assert found == [0.0, 0.0, 0.0, 1e-3, 1e-3, 5e-3, 5e-3, 5e-3]
