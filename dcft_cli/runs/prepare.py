"""From a recipe to encoded data: every check that needs no weights."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from dcft_cli.addresses import SCHEME, local_path
from dcft_cli.models.loading import load_config, quiet_transformers, skeleton
from dcft_cli.models.tokenizers import agree_on_padding, check_token_ids, load_tokenizer
from dcft_cli.recipe import DataSection, Recipe
from dcft_cli.tasks import FAMILIES, EvaluationSet, LoadedTask, build_task, load_task

# Tensor cores work on tiles of 8 values in half precision.
_TILE = 8


@dataclass(frozen=True)
class Preparation:
    """A run's data, encoded for its model.

    Attributes:
        recipe: with the order of labels, where it is declared or the data set's own, and lengths
            that the model can take.
        base_config: the base model's own configuration; `config` has the task's settings.
        train_set: encoded training rows; None for an evaluation.
        evaluation_sets: encoded validation rows.
        max_positions: longest input, in tokens, that model and tokenizer take.
        notes: what was changed in the recipe and why, for the user.
    """

    recipe: Recipe
    loaded: LoadedTask
    config: PreTrainedConfig
    base_config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    train_set: Dataset | None
    evaluation_sets: Sequence[EvaluationSet]
    max_positions: int
    notes: Sequence[str]

    @property
    def auto_class(self) -> str:
        """Name of the transformers class that loads the task's model."""
        return self.loaded.task.auto_class

    @property
    def validation_rows(self) -> dict[str, int]:
        """Number of rows to score by validation set."""
        rows = self.loaded.validation
        return {e.title: len(rows[e.name].dataset) for e in self.evaluation_sets}

    def collator(self, device: torch.device) -> Callable[[Any], dict[str, Any]]:
        """Return the function that pads rows to a batch for a device."""
        longest = -(-self.recipe.data.max_length // _TILE) * _TILE
        tiled = device.type == "cuda" and longest <= self.max_positions
        return self.loaded.task.collator(self.tokenizer, _TILE if tiled else None)

    def training_batch(
        self, model: nn.Module, rows: Iterable[int], device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Return a batch of training rows on a device, with the inputs that the model takes."""
        assert self.train_set is not None
        accepted = signature(model.forward).parameters
        columns = [name for name in self.train_set.column_names if name in accepted]
        batch = self.collator(device)(list(self.train_set.select(rows).select_columns(columns)))
        return {name: value.to(device) for name, value in batch.items()}


def prepare(
    recipe: Recipe,
    *,
    labels: Sequence[str] | None = None,
    training: bool = True,
    data: bool = True,
) -> Preparation:
    """Read, check and encode the data of a run.

    Args:
        labels: class names of a trained adapter; None lets the task find them.
        training: whether to encode training rows too.
        data: False for predictions on other rows: no data is read.

    Raises:
        DataError, RecipeError, ModelError: something is missing or does not fit the task.
    """
    quiet_transformers()
    # The tokenizer first: it takes the least time to find missing.
    family = FAMILIES[recipe.task.kind]
    tokenizer = load_tokenizer(recipe.model, offsets=family.needs_offsets)
    config = load_config(recipe.model)
    agree_on_padding(recipe.model, config, tokenizer, family.auto_class)
    limit = _max_positions(config, tokenizer)
    recipe, notes = _fit_to_base(recipe, config, limit)
    if data:
        loaded = load_task(recipe.task, recipe.data, labels, training=training)
    else:
        task = build_task(recipe.task, recipe.data, labels)
        loaded = LoadedTask(task, task.metrics[0])
    task, train = loaded.task, loaded.train
    base_config = deepcopy(config)
    config.update(dict(task.model_settings))
    if train is not None and recipe.training.class_weights is not None:
        task.weight_classes(recipe.training.class_weights, train.dataset)
    if task.order:
        recipe = _replace(recipe, "task", labels=list(task.order))
    train_set = None if train is None else task.encode_training(train.dataset, tokenizer)
    evaluation_sets = [
        task.evaluation_set(name, rows.dataset, tokenizer)
        for name, rows in loaded.validation.items()
    ]
    for features in [train_set, *(eval_set.features for eval_set in evaluation_sets)]:
        if features is not None:
            check_token_ids(recipe.model, config, tokenizer, features)
    return Preparation(
        recipe=recipe,
        loaded=loaded,
        config=config,
        base_config=base_config,
        tokenizer=tokenizer,
        train_set=train_set,
        evaluation_sets=evaluation_sets,
        max_positions=limit,
        notes=[*notes, *loaded.notes],
    )


def _fit_to_base(recipe: Recipe, config: PreTrainedConfig, limit: int) -> tuple[Recipe, list[str]]:
    """Return the recipe with the base's commit and a length that it can take, and notes on it."""
    notes = []
    if commit := getattr(config, "_commit_hash", None):  # pins a branch such as "main"
        recipe = _replace(recipe, "model", revision=commit)
    if getattr(config, "auto_map", None) and not recipe.model.trust_remote_code:
        notes.append(f"{recipe.model.name} brings code of its own, which was not run")
    if recipe.data.max_length > limit:
        notes.append(f"data.max_length {recipe.data.max_length} -> {limit}, the model's limit")
        recipe = _replace(recipe, "data", max_length=limit)
    return recipe, notes


def adapter_info(recipe: Recipe) -> dict[str, Any]:
    """Return what an adapter file says about its run, enough to score it on other data.

    Local paths of data are left out: the file may be shared.
    """
    sections = recipe.model_dump(mode="json", include={"task", "data", "model"}, exclude_none=True)
    data = sections["data"]
    if local := local_data(recipe.data):  # the Hub data set, if any, is not what was trained on
        for key in (*local, "hub", "config", "revision", "holdout"):
            data.pop(key, None)
    for key in ("name", "trust_remote_code"):  # the file has the name; trust is not passed on
        del sections["model"][key]
    return sections


def local_data(data: DataSection) -> list[str]:
    """Return which of the keys `train` and `validation` name files of this machine."""
    given = {"train": data.train, "validation": data.validation}
    return [key for key, value in given.items() if _has_local_file(data, value)]


def with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe for a run folder, with absolute paths that hold from any other folder."""

    def absolute(address: str) -> str:
        local = not address.startswith(SCHEME) and local_path(address).exists()
        return str(local_path(address).absolute()) if local else address

    def absolute_data(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: absolute_data(address) for name, address in value.items()}
        return absolute(value) if value is not None and recipe.data.is_file(value) else value

    train, validation = absolute_data(recipe.data.train), absolute_data(recipe.data.validation)
    recipe = _replace(recipe, "data", train=train, validation=validation)
    recipe = _replace(recipe, "model", name=absolute(recipe.model.name))
    return _replace(recipe, "training", output=str(folder.absolute()))


def _has_local_file(data: DataSection, value: str | Mapping[str, str] | None) -> bool:
    addresses = value.values() if isinstance(value, Mapping) else [value] if value else []
    return any(data.is_file(a) and not a.startswith(SCHEME) for a in addresses)


def _replace(recipe: Recipe, section: str, **values: object) -> Recipe:
    changed = getattr(recipe, section).model_copy(update=values)
    return recipe.model_copy(update={section: changed})


def _max_positions(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    limit = int(tokenizer.model_max_length)
    positions: int | None = getattr(config, "max_position_embeddings", None)
    # DeBERTa v2 and v3 have only relative positions, and take any length.
    if not positions or positions < 0 or not getattr(config, "position_biased_input", True):
        return limit
    for module in skeleton(config, "AutoModel").modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == positions:
            # RoBERTa-like models count positions from the padding index on.
            positions -= 0 if module.padding_idx is None else module.padding_idx + 1
            break
    return min(limit, positions)
