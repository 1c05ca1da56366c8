"""The task head: which of its layers are trained, adapted and fixed."""

from typing import Any

import pytest
import torch
from torch import nn

from dcft_cli import DCFTConfig, adapter_layers, inject, remove_adapters
from dcft_cli.adapter.inject import fixed_parameters, head_parameters
from dcft_cli.targets.head import dense_layers, outside_encoder
from tests.families import tiny_model, tokens


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("bert", {}, []),
        ("roberta", {}, ["classifier.dense"]),
        ("deberta-v2", {}, ["pooler.dense"]),
        ("distilbert", {}, ["pre_classifier"]),
        ("roberta", {"task": "TokenClassification"}, []),
        ("roberta", {"task": "QuestionAnswering"}, []),
    ],
)
def test_dense_layers_come_before_the_last(
    family: str, settings: dict[str, Any], expected: list[str]
) -> None:
    model = tiny_model(family, **settings)
    assert dense_layers(model, outside_encoder(model)) == expected


def test_a_missing_pooler_is_a_dense_layer_of_the_head() -> None:
    model = tiny_model("bert")
    head = {name for name, _ in model.named_parameters() if name.startswith(("bert.pooler", "cl"))}
    assert dense_layers(model, head) == ["bert.pooler.dense"]


def test_a_layer_that_is_not_square_or_not_missing_is_trained() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    names = {name for name, _ in model.named_parameters()}
    assert dense_layers(model, names) == ["0", "2"]
    assert dense_layers(model, names - {"2.bias"}) == ["0"]


def test_a_frozen_dense_layer_is_the_identity() -> None:
    model = inject(tiny_model("roberta"), DCFTConfig(kernel_size=4), dense="frozen")
    dense = model.classifier.dense
    assert dense.weight.equal(torch.eye(16)) and not dense.bias.any()
    assert not dense.weight.requires_grad and not dense.bias.requires_grad
    assert head_parameters(model).keys() == {
        "classifier.out_proj.weight",
        "classifier.out_proj.bias",
    }
    assert fixed_parameters(model) == {"classifier.dense.weight", "classifier.dense.bias"}
    assert "classifier.dense" not in adapter_layers(model)
    remove_adapters(model)
    assert dense.weight.requires_grad and not fixed_parameters(model)


def test_an_adapted_dense_layer_learns_from_the_identity() -> None:
    model = inject(tiny_model("roberta"), DCFTConfig(kernel_size=4), dense="adapter")
    model(**tokens(), labels=torch.tensor([0, 1, 0])).loss.backward()
    adapter = adapter_layers(model)["classifier.dense"]
    assert adapter.target.role == "HEAD"
    assert adapter.C.grad.any()
    assert adapter.target.matrix.parameter.equal(torch.eye(16))
