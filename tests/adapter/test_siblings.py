"""Layers computed together: the same numbers and gradients as each by itself, and nothing left."""

import copy
import gc
import io
import weakref
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DebertaV2Config,
    LlamaConfig,
    PreTrainedConfig,
    T5Config,
)

from dcft_cli import DCFTConfig, inject, merge, remove_adapters
from dcft_cli.adapter.inject import insert
from dcft_cli.adapter.layer import DCFTLinear
from dcft_cli.adapter.siblings import calls, find_groups
from dcft_cli.attention import set_attention
from dcft_cli.targets.resolve import find_targets
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
from tests.small import perturb


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
    x = inputs(dtype=torch.float32)
    a, b = model(x)
    for y, layer in ((a, model.a), (b, model.b)):
        y.sum().backward()
        (expected,) = torch.autograd.grad(layer(x).sum(), layer.adapters[0].C)
        torch.testing.assert_close(layer.adapters[0].C.grad, expected)


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
