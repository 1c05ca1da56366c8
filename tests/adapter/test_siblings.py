"""Layers computed together: the same numbers and gradients as each by itself, and nothing left."""

import copy
import gc
import io
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DebertaV2Config,
    LlamaConfig,
    PreTrainedConfig,
    T5Config,
)

from dcft_cli import DCFTConfig, adapter_layers, inject, merge, remove_adapters
from dcft_cli.adapter import layer
from dcft_cli.adapter.inject import insert
from dcft_cli.adapter.layer import DCFTLinear
from dcft_cli.adapter.siblings import calls, find_groups
from dcft_cli.adapter.targets import find_targets
from dcft_cli.attention import set_attention
from tests.adapter.small import perturb

WIDTH = 8


class Attention(nn.Module):
    """Q and V of its width, K of half of it; in another order, or not all of them, on request."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, out) for out in (WIDTH, WIDTH // 2, WIDTH))
        self.order = "qkv"

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        found = {}
        for name in self.order:
            found[name] = getattr(self, name)(x)
            x = self.between(x)
        parts = [found[name].sin() for name in sorted(found)]
        return torch.cat([*parts, x], -1).sum(-1, keepdim=True) * x


def network(count: int = 2, **settings: object) -> nn.Sequential:
    torch.manual_seed(0)
    config = DCFTConfig(**{"kernel_size": 4, "targets": ["Q", "K", "V"], **settings})
    model = nn.Sequential(OrderedDict({f"{n}_attn": Attention() for n in range(count)}))
    return perturb(inject(model, config, inputs={"input": inputs().float()})).double()


def inputs(tokens: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(2, tokens, WIDTH, generator=torch.Generator().manual_seed(3), dtype=dtype)
    return x.requires_grad_()


@contextmanager
def sizes(found: list[int]) -> Iterator[None]:
    """Collects how many layers are computed together, product by product."""
    plain = layer.adapted_products

    def counting(x: Tensor, weights: Any, source: Any) -> Any:
        found.append(len(weights))
        return plain(x, weights, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "adapted_products", counting)
        yield


def together(model: nn.Module, x: Tensor) -> tuple[list[int], list[Tensor]]:
    """Sizes of the products of a pass; its outputs and gradients."""
    found: list[int] = []
    with sizes(found):
        y = model(x)
    trained = [p for p in model.parameters() if p.requires_grad]
    return found, [y, *torch.autograd.grad(y.square().sum(), [x, *trained])]


def apart(model: nn.Module) -> nn.Module:
    """A copy whose layers know of no others."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, DCFTLinear):
            module.siblings = None
    return model


def assert_same(found: list[Tensor], expected: list[Tensor], **tolerances: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerances)


def waiting(model: nn.Module) -> list[object]:
    layers = [module for module in model.modules() if isinstance(module, DCFTLinear)]
    return [one.siblings._kept for one in layers if one.siblings and one.siblings._kept]


@pytest.mark.parametrize("tokens", [1, 3, 64])  # W + dW is formed for many
@pytest.mark.parametrize("settings", [{}, {"stride": 3, "rank": 2}])
def test_the_same_as_each_by_itself(tokens: int, settings: dict[str, object]) -> None:
    model, x = network(**settings), inputs(tokens)
    found, ours = together(model, x)
    assert found == [3, 3]
    alone, theirs = together(apart(model), x)
    assert alone == [1] * 6
    assert_same(ours, theirs)
    torch.testing.assert_close(ours[0], merge(copy.deepcopy(model))(x))
    assert not waiting(model)


def test_wide_layers_by_tiles() -> None:
    """As float32 on a CPU has it from 512 columns on."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up_proj, self.gate_proj = nn.Linear(640, 16), nn.Linear(640, 1024)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.up_proj(x), self.gate_proj(x)], -1)

    torch.manual_seed(0)
    x = torch.randn(128, 640, requires_grad=True)
    config = DCFTConfig(kernel_size=8, targets=["FFN_IN"])
    model = nn.Sequential(Wide())
    perturb(inject(model, config, inputs={"input": x.detach()}))
    found, ours = together(model, x)
    assert found == [2]
    _, theirs = together(apart(model), x)
    assert_same(ours, theirs, rtol=1e-3, atol=1e-3 * float(max(t.abs().max() for t in theirs)))


BERT = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20}
DEBERTA = {
    **BERT, "relative_attention": True, "position_buckets": 4, "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
T5 = {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2, "vocab_size": 20}


@pytest.mark.parametrize(
    ("config", "attention", "expected"),
    [
        (BertConfig(**BERT), "auto", {("query", "key", "value")}),
        (AlbertConfig(**BERT, embedding_size=4), "auto", {("query", "key", "value")}),
        # Relative positions go through Q and K, too: the same tensor, or one for each.
        (DebertaV2Config(**DEBERTA), "eager", {("query_proj", "key_proj")}),
        (DebertaV2Config(**DEBERTA), "auto", set()),
        (T5Config(**T5), "auto", {("q", "k", "v"), ("k", "v")}),
    ],
)
def test_which_layers_they_are(
    config: PreTrainedConfig, attention: str, expected: set[tuple[str, ...]]
) -> None:
    model = AutoModel.from_config(config)
    set_attention(model, attention)
    tokens = {"input_ids": torch.tensor([[1, 2, 3]])}
    if config.is_encoder_decoder:
        tokens["decoder_input_ids"] = tokens["input_ids"]
    layers = {}
    with torch.no_grad():
        roles = ["Q", "K", "V", *(["CROSS"] if config.is_encoder_decoder else [])]
        insert(model, find_targets(model, roles), DCFTConfig(kernel_size=2), head=())
        layers = {m: n for n, m in model.named_modules() if isinstance(m, DCFTLinear)}
        with calls(layers) as found:
            model(**tokens)
    groups = [[layers[one] for one in group.layers] for group in find_groups(model, found)]
    assert {tuple(name.rpartition(".")[2] for name in group) for group in groups} == expected
    assert all(len({name.rpartition(".")[0] for name in group}) == 1 for group in groups)


def test_gate_and_up() -> None:
    config = LlamaConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=20,
    )  # fmt: skip
    torch.manual_seed(0)
    model = perturb(inject(AutoModel.from_config(config), DCFTConfig(kernel_size=2)))
    found: list[int] = []
    with sizes(found):
        model(input_ids=torch.tensor([[1, 2, 3]]))
    assert found == [3, 1, 2, 1]


def test_other_modules_or_orders_are_no_group() -> None:
    model = network(2)
    first, second = model
    x, y = torch.ones(2, WIDTH, dtype=torch.float64)

    def groups(*found: tuple[nn.Module, Tensor]) -> list[list[nn.Module]]:
        return [group.layers for group in find_groups(model, found)]

    q, k = first.q, first.k
    assert groups((q, x), (k, x), (second.q, x)) == [[q, k]]
    assert groups((q, x), (k, x), (k, y), (q, y)) == []
    assert groups((q, x), (k, x), (q, y)) == []
    assert groups((q, x), (q, x), (k, x), (k, x)) == []
    with calls([q, k]) as found:
        q(x)
        x.add_(1)  # another input by now
        k(x)
    assert [one for one, _ in found] == [q, k] and not q._forward_pre_hooks


def test_layers_without_a_role_in_common_stay_apart() -> None:
    """Somebody may go backward through one head, and later through another."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.a(x), self.b(x)

    config = DCFTConfig(kernel_size=4, targets=["a", "b"])
    model = inject(Heads(), config, inputs={"x": inputs().float()})
    a, b = model(inputs(dtype=torch.float32))
    a.sum().backward()
    b.sum().backward()


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


def test_copies_have_siblings_of_their_own() -> None:
    model, x = network(), inputs()
    _, expected = together(model, x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    # A model as a whole, with its hooks, is code; these bytes were made three lines above.
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        found, ours = together(other, x)
        assert found == [3, 3]
        assert_same(ours, expected)
        assert other[0].q.siblings is not model[0].q.siblings
    found = []
    with sizes(found):
        torch.testing.assert_close(copy.deepcopy(model[0])(x), model[0](x))
    assert found == [1, 1, 1, 3]  # a part has none


def test_a_model_is_freed_with_its_last_name() -> None:
    model = network()
    model(inputs())
    weight = weakref.ref(model[0].q.base.weight)
    gc.disable()
    try:
        del model
        assert weight() is None
    finally:
        gc.enable()


def test_nothing_waits_after_a_pass_that_was_stopped() -> None:
    model, x = network(), inputs()

    def fail(x: Tensor) -> Tensor:
        raise ValueError

    model[1].between = fail
    with pytest.raises(ValueError):
        model(x)
    assert not waiting(model)


def test_layers_without_adapters_are_left_out() -> None:
    class Unused(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return (self.q(x) + self.v(x) + 0 * self.k(x).sum()) * x

    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(attn=Unused()))
    config = DCFTConfig(kernel_size=4, targets=["Q", "K", "V"])
    with pytest.warns(UserWarning, match=r"attn\.k"):
        perturb(inject(model, config, inputs={"input": inputs().float()})).double()
    x = inputs()
    found, ours = together(model, x)
    assert found == [2]
    assert_same(ours, together(apart(model), x)[1])


def test_taken_out_they_are_strangers() -> None:
    model, x = network(1), inputs()
    layers = [getattr(model[0], name) for name in "qkv"]
    plain = remove_adapters(model)
    assert all(layer.siblings is None for layer in layers)
    for module in plain.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert plain(x).shape == x.shape
