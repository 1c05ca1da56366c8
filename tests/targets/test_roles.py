"""Roles by name, and the proof: what is called a query is what the attention takes as one."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn
from transformers.models.qwen3_5 import modeling_qwen3_5

from dcft_cli import DCFTConfig, adapter_layers
from dcft_cli.adapter.inject import insert
from dcft_cli.targets.resolve import find_roles, find_targets
from tests.architectures.tiny import MODEL_TYPES, UNBUILDABLE, example, tiny_model
from tests.targets.watched import attention_inputs, moved, products_in, run

QKV = {"Q", "K", "V"}
# Types whose attentions call no interface that could be watched, but multiply in the open.
MULTIPLIES = (
    "big_bird canine convbert deberta-v2 flaubert funnel gpt_neo ibert lilt "
    "longformer luke megatron-bert mpnet mpt mvp nystromformer openai-gpt perceiver rembert "
    "roformer squeezebert tapas xlm xlnet yoso"
).split()
if Version(transformers.__version__) < Version("5.24"):
    MULTIPLIES += ["gptj", "layoutlmv3"]
# Types without a projection that is a query, a key or a value alone in all of its layers.
JOINED = "bloom deberta falcon gpt_neox persimmon".split()
UNSEEN = {
    "fnet": "no attention",
    "mra": "its products are a CUDA kernel's",
    "reformer": "queries and keys are the same in every other layer",
}
THROUGH_INTERFACE = [
    name for name in MODEL_TYPES if name not in {*MULTIPLIES, *JOINED, *UNSEEN, *UNBUILDABLE}
]


def single_roles(model: nn.Module) -> set[str]:
    """Of attention inputs: those that stand alone somewhere in the model."""
    return {t.role for t in find_roles(model) if t.role.removeprefix("CROSS_") in QKV}


def with_still_adapters(model: nn.Module, roles: set[str]) -> nn.Module:
    targets = [t for t in find_roles(model) if t.role in roles]
    insert(model, targets, DCFTConfig(kernel_size=4, init="zero"), head=())
    return model


@pytest.mark.parametrize("model_type", THROUGH_INTERFACE)
def test_a_role_moves_what_it_is_called_and_nothing_else(model_type: str) -> None:
    model = tiny_model(model_type)
    roles = single_roles(model)
    with_still_adapters(model, roles)
    inputs = example(model_type, model.config)
    names = {module: name for name, module in model.named_modules()}

    # The first attention that each role is in: what comes in there is the same in every run.
    before = attention_inputs(model, inputs)
    seen = set()
    for module, tensors in before:
        inside = [
            adapter
            for adapter in adapter_layers(model).values()
            if adapter.target.name.startswith(f"{names[module]}.")
            and adapter.target.role not in seen
        ]
        for role in sorted({adapter.target.role for adapter in inside}):
            with moved(adapter for adapter in inside if adapter.target.role == role):
                after = attention_inputs(model, inputs)
            found = next(found for called, found in after if called is module)
            changed = {letter for letter in QKV if not torch.equal(found[letter], tensors[letter])}
            assert changed == {role.removeprefix("CROSS_")}, f"{names[module]}: {role}"
            seen.add(role)
    assert seen == roles != set()


@pytest.mark.parametrize("model_type", MULTIPLIES)
def test_a_role_is_its_factor_of_the_products(model_type: str) -> None:
    """A product has the query first and the key second, and the value is second in another."""
    model = with_still_adapters(tiny_model(model_type), QKV)
    adapters = list(adapter_layers(model).values())
    (query, *_) = (adapter for adapter in adapters if adapter.target.role == "Q")
    attention = query.target.matrix.name.rpartition(".")[0]
    inside = [a for a in adapters if a.target.name.startswith(f"{attention}.")]
    ours = {a.target.role: a for a in reversed(inside)}
    assert ours.keys() == QKV

    module, inputs = model.get_submodule(attention), example(model_type, model.config)
    before = products_in(module, model, inputs)
    changed = {}
    for role, adapter in ours.items():
        with moved([adapter]):
            after = products_in(module, model, inputs)
        changed[role] = [
            [number for number, (a, b) in enumerate(zip(*pair, strict=True)) if not a.equal(b)]
            for pair in zip(before, after, strict=True)
        ]
    by_product = list(zip(changed["Q"], changed["K"], changed["V"], strict=True))
    assert ([0], [1], []) in by_product  # the scores
    assert ([0], [0], [1]) in by_product  # the sum over values, weighed by them


def test_blocks_of_linear_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen3.5 convolves them first, block by block."""
    model = tiny_model("qwen3_5_text")
    insert(
        model,
        find_targets(model, ["*.in_proj_qkv.Q", "*.in_proj_qkv.K", "*.in_proj_qkv.V"]),
        DCFTConfig(kernel_size=4, init="zero"),
        head=(),
    )
    taken: list[dict[str, Tensor]] = []
    original = modeling_qwen3_5.torch_chunk_gated_delta_rule

    def watched(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Any:
        taken.append({"Q": query.clone(), "K": key.clone(), "V": value.clone()})
        return original(query, key, value, **settings)

    monkeypatch.setattr(modeling_qwen3_5, "torch_chunk_gated_delta_rule", watched)
    inputs = example("qwen3_5_text", model.config)
    run(model, inputs)
    for adapter in adapter_layers(model).values():
        with moved([adapter]):
            run(model, inputs)
        before, after = taken[0], taken[-1]
        assert {letter for letter in QKV if not before[letter].equal(after[letter])} == {
            adapter.target.role
        }


def blocks(model: nn.Module, layer: str) -> dict[str, tuple[int, int] | None]:
    """Role to rows of the first layer of that name."""
    found = [t for t in find_roles(model) if t.matrix.name.endswith(f".{layer}")]
    return {t.role: t.rows for t in found if t.matrix is found[0].matrix}


@pytest.mark.parametrize(
    ("model_type", "layer", "sizes"),
    [
        ("modernbert", "attn.Wqkv", (32, 32, 32)),
        ("gpt2", "attn.c_attn", (32, 32, 32)),
        ("openai-gpt", "attn.c_attn", (32, 32, 32)),
        ("mpt", "attn.Wqkv", (32, 32, 32)),
        ("gpt_bigcode", "attn.c_attn", (32, 8, 8)),  # all heads share one key and value
        ("phi3", "self_attn.qkv_proj", (32, 16, 16)),  # two heads do
        ("jetmoe", "self_attention.kv_proj", (32, 32)),
        ("qwen3_5_text", "linear_attn.in_proj_qkv", (16, 16, 48)),
    ],
)
def test_blocks_of_fused_projections(model_type: str, layer: str, sizes: tuple[int, ...]) -> None:
    found = blocks(tiny_model(model_type), layer)
    assert list(found) == ["Q", "K", "V"][-len(sizes) :]
    starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    assert list(found.values()) == list(pairwise(starts))


def test_cross_attention_of_gpt2_has_its_queries_apart() -> None:
    model = tiny_model("gpt2", add_cross_attention=True)
    assert blocks(model, "crossattention.q_attn") == {"CROSS_Q": None}
    assert blocks(model, "crossattention.c_attn") == {"CROSS_K": (0, 32), "CROSS_V": (32, 64)}
    assert blocks(model, "attn.c_attn").keys() == QKV

    # GPT2Model alone takes the states to attend to.
    roles = {"CROSS_Q", "CROSS_K", "CROSS_V"}
    encoder = with_still_adapters(model.transformer, roles)
    inputs = {"input_ids": torch.tensor([[5, 6]]), "encoder_hidden_states": torch.rand(1, 3, 32)}
    before = attention_inputs(encoder, inputs)[1][1]
    for adapter in list(adapter_layers(encoder).values())[:3]:
        with moved([adapter]):
            after = attention_inputs(encoder, inputs)[1][1]
        changed = {f"CROSS_{letter}" for letter in QKV if not before[letter].equal(after[letter])}
        assert changed == {adapter.target.role}


def test_names_under_an_attention_and_under_a_layer() -> None:
    """The same ending is another role in another place, and no role in most."""
    model = nn.Module()

    def put(path: str) -> None:
        parent = model
        *modules, last = path.split(".")
        for name in modules:
            if not hasattr(parent, name):
                parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        parent.add_module(last, nn.Linear(4, 4))

    roles = {
        "m.attention.self.query": "Q",
        "m.attention.output.dense": "O",
        "m.self_attn.o_proj": "O",
        "m.SelfAttention.o": "O",
        "m.output.dense": "FFN_OUT",
        "m.intermediate.dense": "FFN_IN",
        "m.mlp.Wo": "FFN_OUT",
        "m.attn.Wo": "O",
        "m.encoder_attn.k_proj": "CROSS_K",
        "m.EncDecAttention.q": "CROSS_Q",
        "m.crossattention.self.value": "CROSS_V",
    }
    others = ["m.dense", "m.query", "m.pooler.output.dense", "m.adapter.up_proj", "m.attn.gate"]
    for path in (*roles, *others):
        put(path)
    assert {target.name: target.role for target in find_roles(model)} == roles
