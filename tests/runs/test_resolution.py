"""How targets resolve: by a model's name, folder or configuration, or for a recipe."""

from pathlib import Path

import pytest
from transformers import FNetConfig, GPT2Config, GPTNeoXConfig

from dcft_cli.errors import TargetError, UserError
from dcft_cli.runs.inspect_targets import LayerKind, Resolution, resolve
from tests.architectures.tiny import tiny_config
from tests.families import published


def by_role(found: Resolution) -> dict[str | None, LayerKind]:
    return {kind.role: kind for kind in found.layers}


@pytest.mark.parametrize("file", ["", "config.json"])
def test_a_model_by_its_folder_or_its_configuration(file: str, tmp_path: Path) -> None:
    GPT2Config().save_pretrained(tmp_path)
    found = resolve(str(tmp_path / file))
    assert (found.model_type, found.model_class) == ("gpt2", "GPT2ForSequenceClassification")
    query = by_role(found)["Q"]
    assert query.name == "transformer.h.*.attn.c_attn.Q"
    assert (query.out_features, query.in_features, query.count) == (768, 768, 12)
    assert list(query.layout) == ["rows", "transposed"]
    assert all(kind.chosen for kind in found.layers)
    assert found.adapter_parameters == 25_344  # the shapes are BERT's
    assert found.head == ["score"]


def test_a_recipe_selects_layers(tmp_path: Path) -> None:
    published("deberta-v3-base").save_pretrained(tmp_path)
    found = resolve("recipes/rte.yaml", [f"model.name={tmp_path}", "adapter.targets=[Q, V]"])
    assert {kind.role for kind in found.layers if kind.chosen} == {"Q", "V"}
    assert found.adapter_parameters == 6_144
    assert found.head == ["classifier", "pooler.dense"]
    result = found.to_json()
    assert result["model"] == str(tmp_path) and result["targets"] == ["Q", "V"]
    assert [layer["chosen"] for layer in result["layers"]].count(True) == 2


@pytest.mark.parametrize(
    ("method", "chosen", "trained"),
    [
        ("lora", {"Q", "V"}, 24 * 8 * (768 + 768)),  # 24 layers, rank 8
        ("full", set(), 183_831_552),
    ],
)
def test_another_method_has_its_own_places_and_count(
    method: str, chosen: set[str], trained: int, tmp_path: Path
) -> None:
    published("deberta-v3-base").save_pretrained(tmp_path)
    targets = ["adapter.targets=[Q, V]"] if chosen else []
    found = resolve(
        "recipes/rte.yaml", [f"model.name={tmp_path}", f"adapter.method={method}", *targets]
    )
    assert {kind.role for kind in found.layers if kind.chosen} == chosen
    assert (found.method, found.config, found.adapter_parameters) == (method, None, trained)
    assert {kind.parameters for kind in found.layers} == {None}


def test_dense_layers_of_the_head_are_listed_as_a_recipe_treats_them(tmp_path: Path) -> None:
    published("deberta-v3-base").save_pretrained(tmp_path)
    base = f"model.name={tmp_path}"
    adapted = resolve("recipes/rte.yaml", [base, "head.dense=adapter"])
    assert by_role(adapted)["HEAD"].name == "pooler.dense"
    assert (adapted.head, adapted.adapter_parameters) == (["classifier"], 25_600)
    frozen = resolve("recipes/rte.yaml", [base, "head.dense=frozen"])
    assert (frozen.head, frozen.adapter_parameters) == (["classifier"], 25_344)
    assert "pooler.dense" not in {kind.name for kind in frozen.layers}


def test_cross_attention_can_be_selected(tmp_path: Path) -> None:
    tiny_config("bart").save_pretrained(tmp_path)
    found = by_role(resolve(str(tmp_path)))
    assert found["CROSS_Q"].count == 2 and not found["CROSS_Q"].chosen
    chosen = resolve("recipes/rte.yaml", [f"model.name={tmp_path}", "adapter.targets=[CROSS]"])
    assert {kind.role for kind in chosen.layers if kind.chosen} == {
        "CROSS_Q",
        "CROSS_K",
        "CROSS_V",
        "CROSS_O",
    }


def test_default_targets_are_those_that_the_model_has(tmp_path: Path) -> None:
    FNetConfig().save_pretrained(tmp_path)
    found = resolve(str(tmp_path))
    assert list(found.config.targets) == ["FFN"]
    unnamed = [kind.name for kind in found.layers if kind.role is None]
    assert unnamed == ["fnet.embeddings.projection", "fnet.pooler.dense"]
    with pytest.raises(TargetError, match="`Q`"):
        resolve("recipes/rte.yaml", [f"model.name={tmp_path}"])


def test_patterns_select_layers(tmp_path: Path) -> None:
    tiny_config("modernbert").save_pretrained(tmp_path / "modernbert")
    model = f"model.name={tmp_path / 'modernbert'}"
    whole = resolve("recipes/rte.yaml", [model, "adapter.targets=[Wqkv]"])
    assert [(k.role, k.name, k.count) for k in whole.layers if k.chosen] == [
        ("Q+K+V", "model.layers.*.attn.Wqkv", 2)
    ]
    assert whole.adapter_parameters > 0
    assert not any(kind.name.endswith(".Q") for kind in whole.layers)
    tiny_config("xlnet").save_pretrained(tmp_path / "xlnet")
    model = f"model.name={tmp_path / 'xlnet'}"
    read = resolve("recipes/rte.yaml", [model, "adapter.targets=[rel_attn.r]"])
    assert [k.name for k in read.layers if k.chosen] == ["transformer.layer.*.rel_attn.r"]


def test_unresolvable_sources_and_targets_are_errors(tmp_path: Path) -> None:
    GPTNeoXConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(TargetError, match="without K and V"):
        resolve("recipes/rte.yaml", [f"model.name={tmp_path}", "adapter.targets=[Q]"])
    with pytest.raises(UserError, match="KEY=VALUE"):
        resolve(str(tmp_path), ["adapter.rank=2"])
    with pytest.raises(UserError, match="Cannot load the configuration"):
        resolve("run/adapter.safetensors")
