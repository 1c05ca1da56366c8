"""A trained adapter in its base model, ready to score or predict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from dcft_cli.acceleration import enable
from dcft_cli.adapter_file.load import load_adapter
from dcft_cli.adapter_file.read import AdapterContents, read_adapter
from dcft_cli.errors import AdapterFileError
from dcft_cli.models.loading import base_fingerprint, load_model
from dcft_cli.recipe import Recipe, load_recipe, recipe_from_mapping
from dcft_cli.runs.folder import RunFolder, adapter_file
from dcft_cli.runs.prepare import Preparation, prepare
from dcft_cli.training.machine import Machine, find_machine


@dataclass(frozen=True)
class AdaptedModel:
    """An adapter in its base model.

    Attributes:
        path: the adapter file.
        preparation: recipe, task and tokenizer; with the recipe's validation data, if asked for.
        model: on its device.
    """

    path: Path
    preparation: Preparation
    machine: Machine
    model: PreTrainedModel


def load_adapted(source: str | Path, overrides: Sequence[str], *, data: bool) -> AdaptedModel:
    """Load an adapter into its base model, with the task as it was trained and decided.

    Args:
        source: run folder, checkpoint folder or adapter file. The recipe is the run's, or else
            comes from the adapter file.
        overrides: `KEY=VALUE` for the recipe.
        data: whether to read the validation data too.

    Raises:
        UserError: no adapter, no data, or another base model than it was trained on.
    """
    path = adapter_file(source)
    contents = read_adapter(path)
    recipe = recipe_of(path, contents, overrides)
    machine = find_machine(recipe.training, recipe.model)
    labels = contents.model["labels"]
    preparation = prepare(recipe, labels=labels, training=False, data=data)
    task = preparation.loaded.task
    task.decision = replace(task.decision, **contents.info.get("decision", {}))
    recipe = preparation.recipe
    config, auto_class = preparation.config, preparation.auto_class
    model = load_model(recipe.model, config, auto_class).model
    fingerprint = base_fingerprint(model, contents.head.keys(), recipe.model, auto_class)
    load_adapter(model, path, base_fingerprint=fingerprint)
    nn.Module.to(model, machine.device)
    if recipe.training.acceleration == "auto" and machine.devices == 1:  # no nn.DataParallel
        enable(model)
    return AdaptedModel(path, preparation, machine, model)


def recipe_of(path: Path, contents: AdapterContents, overrides: Sequence[str]) -> Recipe:
    """Return the recipe of the adapter's or checkpoint's run folder, else the adapter file's."""
    folder = path.absolute().parent
    if folder.parent.name == "checkpoints":
        folder = folder.parents[1]
    recipe = RunFolder(folder).recipe
    if recipe.is_file():
        return load_recipe(str(recipe), overrides).recipe
    if "task" not in contents.info:
        raise AdapterFileError(
            f"{path} names no task: it was saved outside `dcft train`.",
            "Use it in Python: load_adapter(model, path).",
        )
    base = {key: contents.base[key] for key in ("name", "revision") if contents.base[key]}
    info = {name: contents.info[name] for name in Recipe.model_fields if name in contents.info}
    sections = {**info, "model": {**info["model"], **base}}
    return recipe_from_mapping(sections, str(path), overrides)
