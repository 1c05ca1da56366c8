"""Layers computed together, however they are called: checkpoints, hooks, other orders."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dcft_cli import adapter_layers, merge
from tests.adapter.attending import (
    WIDTH,
    Attention,
    apart,
    inputs,
    network,
    sizes,
    together,
    waiting,
)
from tests.adapter.recomputed import assert_same


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool) -> None:
    model, x = network(), inputs()
    _, expected = together(model, x)

    def forward(x: Tensor) -> Tensor:
        for part in model:
            x = checkpoint(part, x, use_reentrant=reentrant)
        return x

    found: list[int] = []
    model.forward = forward
    trained = [p for p in model.parameters() if p.requires_grad]
    with sizes(found):
        y = model(x)
        y.square().sum().backward()
    assert found.count(3) == (2 if reentrant else 4)  # again in the backward pass
    assert_same([y, x.grad, *(p.grad for p in trained)], expected)
    assert not waiting(model)


@pytest.mark.parametrize("order", ["qk", "vkq", "kv", "qqkv"])
def test_called_otherwise_than_before(order: str) -> None:
    model, x = network(), inputs()
    for part in model:
        part.order = order
    other = apart(model)
    ours, theirs = model(x), other(x)
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        # What is not called has no gradient, or zeros.
        found, expected = (
            torch.zeros_like(p) if p.grad is None else p.grad for p in (one, another)
        )
        torch.testing.assert_close(found, expected)
    assert not waiting(model)


def test_an_input_changed_in_between() -> None:
    model, x = network(1), inputs()
    model[0].between = lambda x: x.add_(1)
    with torch.no_grad():
        expected = apart(model)(x.clone())
    found: list[int] = []
    with sizes(found):
        y = model(x.detach().clone())
    assert found == [3, 1, 1]
    torch.testing.assert_close(y, expected)


class Otherwise(Attention):
    """K under other conditions than Q and V."""

    condition: Any = None

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x)
        with self.condition():
            k = self.k(x)
        v = self.v(x)
        self.found = q, k, v
        return torch.cat([q, k, v], -1).sum(-1, keepdim=True) * x


@pytest.mark.parametrize("change", ["no gradients", "half precision"])
def test_called_in_another_way_in_between(change: str) -> None:
    model = network(1).float()
    model[0].__class__ = Otherwise
    model[0].condition = (
        torch.no_grad if change == "no gradients" else lambda: torch.autocast("cpu", torch.bfloat16)
    )
    found: list[int] = []
    with sizes(found):
        model(inputs(dtype=torch.float32))
    q, k, v = model[0].found
    assert found == [3, 1]
    assert q.requires_grad and v.requires_grad
    assert k.requires_grad == (change != "no gradients")
    assert (k.dtype == torch.bfloat16) == (change == "half precision")


def test_one_of_them_in_a_checkpoint() -> None:
    """It must save the same when it is called again by itself."""
    model, x = network(1), inputs()
    _, expected = together(model, x)

    class Checkpointed(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=False)

    model[0].k = Checkpointed(model[0].k)
    found, ours = together(model, x)
    assert found == [3, 1]
    assert_same(ours, expected)


def test_a_part_called_by_itself_is_up_to_date() -> None:
    model, x = network(1), inputs()
    attention = model[0]
    attention.q(x).sum().backward()
    (_, adapter, _) = adapter_layers(model).values()
    with torch.no_grad():
        adapter.C.mul_(2)
    k = attention.k(x)
    torch.testing.assert_close(k, apart(model)[0].k(x))
    k.sum().backward()
    assert not waiting(model)


@pytest.mark.parametrize("kind", ["hook", "forward"])
def test_weights_that_are_brought_for_a_call(kind: str) -> None:
    """As offloading does it, which has them elsewhere in between."""
    model, x = network(1), inputs()
    _, expected = together(model, x)
    k = model[0].k
    whole, nothing = k.base.weight.data, torch.zeros_like(k.base.weight)
    k.base.weight.data = nothing
    plain = k.forward

    def bring(*inputs: object) -> None:
        k.base.weight.data = whole

    def forward(x: Tensor) -> Tensor:
        bring()
        y = plain(x)
        k.base.weight.data = nothing
        return y

    if kind == "hook":
        k.register_forward_pre_hook(bring)
    else:
        k.forward = forward
    found: list[int] = []
    with sizes(found):
        y = model(x)
    assert found == [1, 1, 1]
    torch.testing.assert_close(y, expected[0])


def test_weights_that_are_elsewhere_until_they_are_needed() -> None:
    class Bringing(Attention):
        def forward(self, x: Tensor) -> Tensor:
            q = self.q(x)
            self.k.base.weight = self.whole
            return torch.cat([q, self.k(x), self.v(x)], -1)

    model, x = network(1), inputs()
    expected = torch.cat([getattr(model[0], name)(x) for name in "qkv"], -1)
    weight = model[0].k.base.weight
    model[0].__class__, model[0].__dict__["whole"] = Bringing, weight
    model[0].k.base.weight = nn.Parameter(torch.empty_like(weight, device="meta"), False)
    found: list[int] = []
    with sizes(found):
        y = model(x)
    assert found == [1, 1, 1]
    torch.testing.assert_close(y, expected)


def test_outputs_changed_in_place() -> None:
    class InPlace(Attention):
        def forward(self, x: Tensor) -> Tensor:
            parts = [getattr(self, name)(x) for name in "qkv"]
            return torch.cat([part.mul_(n + 2).add_(1) for n, part in enumerate(parts)], -1)

    model, x = network(1), inputs()
    model[0].__class__ = InPlace
    found, ours = together(model, x)
    assert found == [3]
    torch.testing.assert_close(ours[0], merge(copy.deepcopy(model))(x))
    _, theirs = together(apart(model), x)
    assert_same(ours, theirs)


def test_replicas_and_frozen_models() -> None:
    """As DataParallel makes them: plain tensors in the place of parameters."""
    model, x = network(1), inputs()
    expected = model(x)
    replica = model._replicate_for_data_parallel()
    attention = model[0]._replicate_for_data_parallel()
    replica._modules["0_attn"] = attention
    for name in "qkv":
        layer = getattr(model[0], name)
        copied = layer._replicate_for_data_parallel()
        base, adapter = layer.base, layer.adapters[0]
        parts = [one._replicate_for_data_parallel() for one in (base, adapter)]
        for part, whole in zip(parts, (base, adapter), strict=True):
            for key, parameter in whole._parameters.items():
                setattr(part, key, parameter.view_as(parameter))
        copied._modules["base"] = parts[0]
        copied._modules["adapters"] = layer.adapters._replicate_for_data_parallel()
        copied._modules["adapters"]._modules["0"] = parts[1]
        attention._modules[name] = copied
    torch.testing.assert_close(replica(x), expected)
    model.requires_grad_(False)
    with torch.inference_mode():
        made = torch.ones(2, 3, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(model(made), model(torch.ones_like(made)))


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("inside", [True, False])
def test_hooks_of_other_hands(hook: str, inside: bool) -> None:
    """What comes before or after a layer stays its own."""
    model, x = network(1), inputs()
    for each in (model, other := apart(model)):
        target = each[0].k.base if inside else each[0].k
        if hook == "register_forward_hook":
            target.register_forward_hook(lambda module, inputs, output: output * 2)
        else:
            target.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    _, ours = together(model, x)
    _, theirs = together(other, x)
    assert_same(ours, theirs)


def test_autocast_casts_the_input_once() -> None:
    model, x = network(1).float(), inputs(dtype=torch.float32)
    saved: list[Tensor] = []
    with (
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        model(x)
    kept = [t for t in saved if t.shape == (6, WIDTH) and t.dtype == torch.bfloat16]
    assert len(kept) == 1
