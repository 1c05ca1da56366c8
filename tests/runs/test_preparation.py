"""Before weights are loaded: lengths, padding, and what an adapter file says."""

from pathlib import Path

import pytest
import torch

from dcft_cli.recipe import load_recipe, recipe_from_mapping
from dcft_cli.runs.prepare import adapter_info, prepare
from tests.families import FAMILIES, save_base
from tests.jobs import recipe


@pytest.mark.parametrize("family", FAMILIES)
def test_the_length_is_limited_to_the_models_positions(family: str, tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", family)
    tokenizer = base / "tokenizer_config.json"  # one that does not say what the model takes
    tokenizer.write_text(tokenizer.read_text().replace('"model_max_length": 64', '"x": 64'))
    ready = prepare(recipe("rte", tmp_path, base, "data.max_length=500").recipe, training=False)
    # Positions begin behind the padding index: 0 in the tiny RoBERTas, always 1 in MPNet.
    lost = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 2}.get(family, 0)
    limit = 500 if family == "deberta-v2" else 80 - lost
    assert ready.recipe.data.max_length == limit
    assert ready.notes == ([] if limit == 500 else [
        f"data.max_length 500 -> {limit}, the model's limit"
    ])  # fmt: skip


@pytest.mark.parametrize("task", ["mrpc", "squad_v1", "token_classification"])
def test_batches_for_a_cuda_device_are_padded_to_multiples_of_8(
    task: str, base: Path, tmp_path: Path
) -> None:
    ready = prepare(recipe(task, tmp_path, base).recipe)
    assert ready.train_set is not None
    rows = list(ready.train_set.select(range(4)).remove_columns("length"))
    longest = max(len(row["input_ids"]) for row in rows)
    assert longest % 8
    widths = {}
    for device in ("cpu", "cuda"):
        batch = ready.collator(torch.device(device))(rows)
        assert batch["input_ids"].device.type == "cpu"  # the Trainer moves it
        widths[device] = batch["input_ids"].shape[1]
        assert batch["attention_mask"].sum() == sum(len(row["input_ids"]) for row in rows)
        if batch.get("labels") is not None and batch["labels"].ndim == 2:
            assert batch["labels"].shape == batch["input_ids"].shape
    assert widths == {"cpu": longest, "cuda": -(-longest // 8) * 8}


@pytest.mark.parametrize(("positions", "multiple"), [(80, 8), (79, None), (500, 8)])
def test_padding_does_not_exceed_the_models_positions(
    positions: int, multiple: int | None, tmp_path: Path
) -> None:
    base = save_base(tmp_path / "base", max_position_embeddings=positions)
    tokenizer = base / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace('"model_max_length": 64', '"x": 64'))
    ready = prepare(recipe("rte", tmp_path, base, "data.max_length=100").recipe)
    collator = ready.collator(torch.device("cuda"))
    assert collator.pad_to_multiple_of == multiple


def test_an_adapter_trained_on_files_does_not_name_hub_data() -> None:
    local = load_recipe("recipes/rte.yaml", ["data.train=a.jsonl", "data.validation=b.jsonl"])
    data = adapter_info(local.recipe)["data"]
    assert data.keys().isdisjoint({"train", "validation", "hub", "config"})
    other = ["data.hub=null", "data.config=null", "data.train=no_ending", "data.format=csv"]
    assert "train" not in adapter_info(load_recipe("recipes/rte.yaml", other).recipe)["data"]
    hub = adapter_info(load_recipe("recipes/rte.yaml").recipe)
    assert (hub["data"]["hub"], hub["data"]["config"]) == ("nyu-mll/glue", "rte")
    quickstart = adapter_info(load_recipe("recipes/quickstart.yaml").recipe)
    assert quickstart["data"]["train"] == "package://vaderSentiment/vader_lexicon.txt"
    sections = {**hub, "model": {"name": "m"}}
    assert recipe_from_mapping(sections, "adapter").task.name == "rte"
