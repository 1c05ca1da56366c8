"""Settings and defaults of methods other than DCFT."""

from typing import Any

import pytest
import yaml

from dcft_cli.recipe import Recipe, dump_recipe, recipe_from_mapping
from dcft_cli.recipe.methods import METHODS

SECTIONS: dict[str, Any] = {"model": {"name": "m"}, "task": {"type": "regression"}}
TUNED = {
    **SECTIONS,
    "adapter": {"kernel_size": 2, "rank": 3, "targets": ["Q"], "file_dtype": "bfloat16"},
    "training": {"learning_rate": 0.1, "head_learning_rate": 0.2, "epochs": 4},
}


def recipe(*overrides: str, sections: dict[str, Any] = SECTIONS) -> Recipe:
    return recipe_from_mapping(sections, "r", overrides)


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_with_every_setting_reads_back(method: str) -> None:
    found = recipe(f"adapter.method={method}")
    text = dump_recipe(found)
    assert recipe(sections=yaml.safe_load(text)) == found
    assert set(yaml.safe_load(text)["adapter"]) <= METHODS[method].keys


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_its_own_defaults(method: str) -> None:
    found, own = recipe(f"adapter.method={method}"), METHODS[method]
    assert found.training.learning_rate == own.learning_rate
    assert found.training.head_learning_rate == own.head_learning_rate
    assert own.defaults.items() <= found.adapter.model_dump().items()


def test_a_given_rate_is_that_of_the_head_too() -> None:
    training = recipe("adapter.method=lora", "training.learning_rate=0.3").training
    assert (training.learning_rate, training.head_learning_rate) == (0.3, None)
    training = recipe("adapter.method=lora", "training.head_learning_rate=0.3").training
    assert (training.learning_rate, training.head_learning_rate) == (1e-3, 0.3)


@pytest.mark.parametrize("method", METHODS)
def test_only_methods_for_single_layers_adapt_the_head(method: str) -> None:
    found = recipe(f"adapter={{method: {method}}}")
    assert found.head.dense == ("adapter" if "targets" in METHODS[method].keys else "full")
    given = recipe(f"adapter={{method: {method}}}", "head.dense=frozen")
    assert given.head.dense == "frozen"


def test_naming_another_method_removes_what_was_chosen_for_the_first() -> None:
    found = recipe("adapter.method=lora", sections=TUNED)
    assert (found.adapter.rank, found.adapter.scale) == (8, 2.0)
    assert (found.adapter.targets, found.adapter.file_dtype) == (["Q"], "bfloat16")
    assert (found.training.learning_rate, found.training.head_learning_rate) == (1e-3, 5e-3)
    assert found.training.epochs == 4


@pytest.mark.parametrize("method", METHODS)
def test_any_method_can_be_named_for_any_recipe(method: str) -> None:
    found = recipe(f"adapter.method={method}", sections=TUNED)
    assert found.adapter.method == method
    assert found.adapter.targets == (
        ["Q"] if "targets" in METHODS[method].keys else ["Q", "K", "V", "O", "FFN"]
    )


def test_overrides_of_the_new_method_stay() -> None:
    given = ("training.learning_rate=0.3", "adapter.method=lora", "adapter.rank=5")
    found = recipe(*given, sections=TUNED)
    assert (found.adapter.rank, found.training.learning_rate) == (5, 0.3)
    whole = recipe("adapter={method: lora, rank: 6}", sections=TUNED)
    assert (whole.adapter.rank, whole.training.learning_rate) == (6, 1e-3)
    assert whole.adapter.targets == ["Q", "K", "V", "O", "FFN"]


def test_naming_the_same_method_changes_nothing() -> None:
    assert recipe("adapter.method=dcft", sections=TUNED) == recipe(sections=TUNED)
