"""From a recipe to encoded data: everything that can go wrong before weights are loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from dcft_cli.addresses import SCHEME, local_path
from dcft_cli.models.loading import load_config, quiet_transformers, skeleton
from dcft_cli.models.tokenizers import agree_on_padding, load_tokenizer
from dcft_cli.recipe import Recipe, is_file_address
from dcft_cli.tasks import FAMILIES, EvaluationSet, LoadedTask, load_task

# What tensor cores divide a matrix into, in half precision.
_TILE = 8


@dataclass(frozen=True)
class Preparation:
    """A run's data, ready for a model.

    Attributes:
        recipe: resolved: labels as found in the data, lengths that the model can take.
        loaded: task and checked rows.
        train_set: encoded training rows; None where nothing is trained.
        evaluation_sets: encoded validation rows.
        longest_input: tokens that the model has positions for.
        notes: what was changed in the recipe and why, for the user to see.
    """

    recipe: Recipe
    loaded: LoadedTask
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    train_set: Dataset | None
    evaluation_sets: Sequence[EvaluationSet]
    longest_input: int
    notes: Sequence[str]

    @property
    def auto_class(self) -> str:
        """Name of the transformers class that loads the task's model."""
        return self.loaded.task.auto_class

    def collator(self, device: torch.device) -> Callable[[Any], dict[str, Any]]:
        """What puts rows into a batch for a device."""
        widest = -(-self.recipe.data.max_length // _TILE) * _TILE
        tiled = device.type == "cuda" and widest <= self.longest_input
        return self.loaded.task.collator(self.tokenizer, _TILE if tiled else None)


def prepare(
    recipe: Recipe, *, labels: Sequence[str] | None = None, training: bool = True
) -> Preparation:
    """Reads, checks and encodes the data of a run.

    Args:
        labels: class names of a trained adapter; None finds them as the task does.
        training: whether training rows are wanted too.

    Raises:
        DataError, RecipeError, ModelError: whatever does not fit, before any work is done.
    """
    quiet_transformers()
    # The tokenizer first: it is the quicker thing to be missing.
    tokenizer = load_tokenizer(recipe.model, offsets=FAMILIES[recipe.task.kind].needs_offsets)
    config = load_config(recipe.model, {})
    agree_on_padding(recipe.model, config, tokenizer)
    if commit := getattr(config, "_commit_hash", None):  # what "main" is today, for later
        recipe = _with(recipe, "model", revision=commit)
    limit = _longest_input(config, tokenizer)
    notes = []
    if recipe.data.max_length > limit:
        notes.append(f"data.max_length {recipe.data.max_length} -> {limit}, the model's limit")
        recipe = _with(recipe, "data", max_length=limit)
    loaded = load_task(recipe.task, recipe.data, labels, training=training)
    task = loaded.task
    if task.labels:
        recipe = _with(recipe, "task", labels=list(task.labels))
    train_set = None
    if loaded.train is not None:
        train_set = task.encode_training(loaded.train.dataset, tokenizer)
    config = load_config(recipe.model, task.model_settings)
    agree_on_padding(recipe.model, config, tokenizer)
    return Preparation(
        recipe=recipe,
        loaded=loaded,
        config=config,
        tokenizer=tokenizer,
        train_set=train_set,
        evaluation_sets=[
            task.evaluation_set(name, rows.dataset, tokenizer)
            for name, rows in loaded.validation.items()
        ],
        longest_input=limit,
        notes=notes,
    )


def description(recipe: Recipe) -> dict[str, Any]:
    """What an adapter file says about its run: enough to score it on other data.

    Local paths of data stay out of it: the file may be passed on.
    """
    sections = recipe.model_dump(mode="json", include={"task", "data", "model"}, exclude_none=True)
    data = sections["data"]
    local = [key for key in ("train", "validation") if _is_private(data.get(key))]
    if local:  # nor does what is left tell of the data that was used
        for key in (*local, "hub", "config", "revision", "holdout"):
            data.pop(key, None)
    del sections["model"]["name"]  # is the base's, and stands there
    return sections


def resting_in(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe as it is kept in a run folder: usable from any other folder."""

    def absolute(address: str) -> str:
        local = not address.startswith(SCHEME) and local_path(address).exists()
        return str(local_path(address).absolute()) if local else address

    def file(address: str) -> str:
        split = recipe.data.hub is not None and not is_file_address(address)
        return address if split else absolute(address)

    data = recipe.data
    validation = data.validation
    if isinstance(validation, Mapping):
        validation = {name: file(address) for name, address in validation.items()}
    elif validation is not None:
        validation = file(validation)
    recipe = _with(recipe, "data", train=data.train and file(data.train), validation=validation)
    recipe = _with(recipe, "model", name=absolute(recipe.model.name))
    return _with(recipe, "training", output=str(folder.absolute()))


def _is_private(value: str | Mapping[str, str] | None) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_private, value.values()))
    return value is not None and is_file_address(value) and not value.startswith(SCHEME)


def _with(recipe: Recipe, section: str, **values: object) -> Recipe:
    changed = getattr(recipe, section).model_copy(update=values)
    return recipe.model_copy(update={section: changed})


def _longest_input(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that the model has positions for."""
    limit = int(tokenizer.model_max_length)
    positions: int | None = getattr(config, "max_position_embeddings", None)
    # DeBERTa v2 and v3 know relative positions alone, and take any length.
    if not positions or positions < 0 or not getattr(config, "position_biased_input", True):
        return limit
    for module in skeleton(config, "AutoModel").modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == positions:
            # RoBERTa and its kin count positions from the padding index on.
            positions -= 0 if module.padding_idx is None else module.padding_idx + 1
            break
    return min(limit, positions)
