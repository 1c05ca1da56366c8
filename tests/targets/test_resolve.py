"""Which weights get an adapter: by role, by pattern, by slice; and what is refused."""

from typing import Any

import pytest
import torch
from torch import nn

from dcft_cli import DCFTConfig, adapter_layers, inject, merge
from dcft_cli.errors import TargetError
from dcft_cli.targets.resolve import Target, find_roles, find_targets
from dcft_cli.targets.roles import GROUPS
from tests.architectures.tiny import example
from tests.architectures.tiny import tiny_model as any_tiny_model
from tests.families import FAMILIES, tiny_model
from tests.small import Fused, SmallExperts, adapt, linear
from tests.targets.watched import run

DEFAULT = DCFTConfig().targets


def roles(found: list[Target]) -> list[str]:
    return sorted({target.role for target in found})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_role_is_found_once_per_layer(family: str) -> None:
    found = find_targets(tiny_model(family), DEFAULT)
    expected = sorted(["Q", "K", "V", "O", "FFN_IN", "FFN_OUT"] * 2)
    assert sorted(target.role for target in found) == expected


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["Q", "V"], ["Q", "V"]),
        (["O", "FFN_OUT"], ["FFN_OUT", "O"]),
        (["FFN"], ["FFN_IN", "FFN_OUT"]),
        (["intermediate.dense"], ["FFN_IN"]),
        (["*.self.*", "K"], ["K", "Q", "V"]),
        (["bert.encoder.layer.0.output.dense"], ["FFN_OUT"]),
    ],
)
def test_by_role_or_pattern(targets: list[str], expected: list[str]) -> None:
    assert roles(find_targets(tiny_model(), targets)) == expected


def test_a_pattern_reaches_layers_that_no_family_names() -> None:
    model = nn.ModuleDict({"mixer": nn.ModuleList([nn.Linear(6, 4), nn.Linear(4, 4)])})
    found = find_targets(model, ["mixer.*"])
    assert [(t.name, t.role) for t in found] == [("mixer.0", "mixer.*"), ("mixer.1", "mixer.*")]


def test_a_pattern_reaches_a_parameter_by_its_own_name() -> None:
    (found,) = find_targets(nn.ModuleDict({"mlp": SmallExperts()}), ["mlp.up_proj"])
    assert (found.name, found.role, found.matrix.count) == ("mlp.up_proj", "FFN_IN", 3)
    assert (found.out_features, found.in_features) == (10, 6)


@pytest.mark.parametrize("targets", [["Q", "Z"], ["Z*"], ["q"], ["FFN", "CROSS_Q"]])
def test_a_target_that_matches_nothing_lists_what_there_is(targets: list[str]) -> None:
    model = tiny_model()
    with pytest.raises(TargetError) as caught:
        inject(model, DCFTConfig(targets=targets))
    assert f"No layer for the target `{targets[-1]}`" in caught.value.message
    assert "bert.encoder.layer.*.attention.self.query  16 x 16  (2 layers)" in caught.value.message
    assert "Q, K, V, O" in caught.value.hint
    assert not adapter_layers(model)
    assert all(p.requires_grad for p in model.parameters())


def test_half_a_group_is_not_the_group() -> None:
    model = nn.ModuleDict({"fc1": nn.Linear(4, 4)})
    assert roles(find_targets(model, ["FFN_IN"])) == ["FFN_IN"]
    with pytest.raises(TargetError, match="`FFN_OUT`"):
        find_targets(model, ["FFN"])


def test_what_is_trained_as_it_is_is_no_target() -> None:
    model = tiny_model("roberta")
    head = ["classifier.dense.weight"]
    names = [target.name for target in find_targets(model, ["*.dense"], exclude=head)]
    assert names and not any(name.startswith("classifier") for name in names)
    with pytest.raises(TargetError, match="`classifier"):
        find_targets(model, ["classifier.dense"], exclude=head)
    assert not any(t.name.startswith("classifier") for t in find_roles(model, exclude=head))


# Fused projections


def test_roles_choose_slices_of_a_fused_layer() -> None:
    found = find_targets(nn.ModuleDict({"attn": Fused(6)}), ["Q", "V"])
    assert [(t.name, t.role, t.rows) for t in found] == [
        ("attn.qkv.Q", "Q", (0, 6)),
        ("attn.qkv.V", "V", (12, 18)),
    ]
    assert {(t.out_features, t.in_features) for t in found} == {(6, 6)}
    assert found[0].matrix is found[1].matrix


def test_a_pattern_of_a_fused_layer_adapts_it_whole() -> None:
    for targets in (["attn.qkv"], ["*.qkv", "Q"], ["*qkv*"]):
        (found,) = find_targets(nn.ModuleDict({"attn": Fused(6)}), targets)
        assert (found.name, found.role, found.rows) == ("attn.qkv", "Q+K+V", None)
        assert found.out_features == 18


def test_a_pattern_may_name_a_slice() -> None:
    model = any_tiny_model("gpt2")
    for targets in (["*.c_attn.Q"], ["c_attn.Q"], ["transformer.h.?.attn.c_attn.Q"]):
        found = find_targets(model, targets)
        assert [t.name for t in found] == [f"transformer.h.{n}.attn.c_attn.Q" for n in (0, 1)]
        assert [t.rows for t in found] == [(0, 32)] * 2
    both = find_targets(model, ["h.0.attn.c_attn.Q", "V"])
    assert [(t.name[14:], t.role) for t in both] == [
        ("0.attn.c_attn.Q", "Q"),
        ("0.attn.c_attn.V", "V"),
        ("1.attn.c_attn.V", "V"),
    ]
    with pytest.raises(TargetError, match=r"`c_attn\.CROSS_Q`"):
        find_targets(model, ["c_attn.CROSS_Q"])


@pytest.mark.parametrize(
    ("model_type", "settings", "layer", "role"),
    [
        ("deberta", {}, "attention.self.in_proj", "Q+K+V"),
        ("gpt_neox", {}, "attention.query_key_value", "Q+K+V"),
        ("falcon", {"new_decoder_architecture": True}, "query_key_value", "Q+K+V"),
        ("falcon", {"new_decoder_architecture": False}, "query_key_value", "Q+K+V"),
        (
            "falcon",
            {"new_decoder_architecture": False, "multi_query": False, "num_kv_heads": 4},
            "query_key_value",
            "Q+K+V",
        ),
        ("gpt_bigcode", {"multi_query": False}, "attn.c_attn", "Q+K+V"),
        ("minimax", {}, "self_attn.qkv_proj", "Q+K+V"),
        ("qwen3_next", {}, "linear_attn.in_proj_qkvz", "Q+K+V"),
        ("deepseek_v2", {}, "self_attn.kv_b_proj", "K+V"),
        ("reformer", {}, "self_attention.query_key", "Q+K"),
    ],
)
def test_interleaved_projections_go_together_or_not_at_all(
    model_type: str, settings: dict[str, Any], layer: str, role: str
) -> None:
    model = any_tiny_model(model_type, **settings)
    together = role.split("+")
    for alone in together:
        with pytest.raises(TargetError) as caught:
            find_targets(model, [alone])
        others = " and ".join(other for other in together if other != alone)
        assert layer.rpartition(".")[0] in caught.value.message
        assert f"computes {' and '.join(together)} together" in caught.value.message
        assert caught.value.message.endswith(f"cannot be adapted without {others}.")
        assert f"Put {', '.join(together)} into the targets together" in caught.value.hint

    found = [t for t in find_targets(model, together) if t.name.endswith(f".{layer}")]
    assert found and {(t.role, t.rows) for t in found} == {(role, None)}
    inputs = example(model_type, model.config)
    plain = run(model, inputs).logits
    adapted = run(adapt(model, *together), inputs).logits
    assert (adapted - plain).abs().max() > 1e-3
    torch.testing.assert_close(run(merge(model), inputs).logits, adapted, rtol=0, atol=1e-5)


# Cross-attention


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_cross_attention_is_its_own_choice(model_type: str) -> None:
    model = any_tiny_model(model_type)
    default = find_targets(model, DEFAULT)
    assert roles(default) == ["FFN_IN", "FFN_OUT", "K", "O", "Q", "V"]
    cross = find_targets(model, ["CROSS"])
    assert roles(cross) == sorted(GROUPS["CROSS"])
    decoder_layers = {t.name.rpartition(".")[0] for t in cross}
    assert len(decoder_layers) == 2 and len(cross) == 8
    assert {t.name for t in default}.isdisjoint(t.name for t in cross)
    assert roles(find_targets(model, ["CROSS_Q", "V"])) == ["CROSS_Q", "V"]
    with pytest.raises(TargetError, match="`CROSS_Q`, `CROSS_K`, `CROSS_V`, `CROSS_O`"):
        find_targets(tiny_model(), ["Q", "CROSS"])


# Shared weights


def test_a_weight_that_others_share_is_no_target() -> None:
    model = nn.Sequential(linear(6, 6), linear(6, 6), nn.Embedding(6, 6))
    model[1].weight = model[0].weight
    with pytest.raises(TargetError, match=r"weight of 0 is shared: it is 1\.weight too"):
        find_targets(model, ["0"])
    assert [t.name for t in find_targets(model, ["0", "1"])] == ["0"]
    model[2].weight = model[0].weight
    with pytest.raises(TargetError, match=r"2\.weight"):
        find_targets(model, ["0", "1"])


def test_layers_that_share_a_weight_are_one_target() -> None:
    attentions = nn.ModuleList([Fused(), Fused()])
    attentions[1].qkv.weight = attentions[0].qkv.weight
    model = nn.ModuleDict({"attn": attentions})
    found = find_targets(model, ["Q", "K"])
    assert [(t.name, len(t.matrices)) for t in found] == [("attn.0.qkv.Q", 2), ("attn.0.qkv.K", 2)]
    (whole,) = find_targets(model, ["qkv"])
    assert [matrix.path for matrix in whole.matrices] == ["attn.0.qkv", "attn.1.qkv"]
