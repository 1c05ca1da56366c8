"""A trained adapter in its base model, ready to score or predict."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from dcft_cli.acceleration import enable
from dcft_cli.adapter_file.contents import Contents
from dcft_cli.adapter_file.read import read_contents
from dcft_cli.errors import AdapterFileError, RecipeError, listed
from dcft_cli.methods.load import load_method
from dcft_cli.methods.method import Method
from dcft_cli.models.loading import base_fingerprint, load_model
from dcft_cli.recipe import Recipe, load_recipe, recipe_from_mapping
from dcft_cli.recipe.settings import counts_when_scoring, keys_when_scoring
from dcft_cli.runs.folder import RunFolder, adapter_file, recipe_beside
from dcft_cli.runs.prepare import Preparation, prepare
from dcft_cli.tasks import FAMILIES
from dcft_cli.training.machine import Machine, find_machine


@dataclass(frozen=True)
class AdaptedModel:
    """An adapter in its base model.

    Attributes:
        path: the adapter file.
        preparation: recipe, task and tokenizer; with the recipe's validation data, if asked for.
        model: on its device.
        chosen: parts of the task's decision that were chosen in training.
        method: attached to the model; None while rows name their adapters themselves.
    """

    path: Path
    preparation: Preparation
    machine: Machine
    model: PreTrainedModel
    chosen: tuple[str, ...]
    method: Method | None = None


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
    contents = read_contents(path)
    recipe = recipe_of(path, contents, overrides)
    if data:
        recipe = _with_held_out_rows(recipe, path)
    machine = find_machine(recipe.training, recipe.model)
    labels = contents.model["labels"]
    preparation = prepare(recipe, labels=labels, training=False, data=data)
    chosen = preparation.loaded.task.restore_decision(contents.about().decision.chosen())
    recipe = preparation.recipe
    config, auto_class = preparation.config, preparation.auto_class
    model = load_model(recipe.model, config, auto_class).model
    fingerprint = base_fingerprint(model, contents.not_in_base, recipe.model, auto_class)
    method = load_method(model, contents, base_fingerprint=fingerprint)
    nn.Module.to(model, machine.device)
    if recipe.training.acceleration == "auto" and machine.devices == 1:  # no nn.DataParallel
        enable(model)
    return AdaptedModel(path, preparation, machine, model, chosen, method)


def recipe_of(path: Path, contents: Contents, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of the adapter's or checkpoint's run folder, else the adapter file's.

    Raises:
        AdapterFileError: there is neither, or the file's is of another form.
        RecipeError: an override that is wrong, or used in training only.
    """
    if file := recipe_beside(path):
        trained, used = (load_recipe(str(file), given).recipe for given in ((), overrides))
        return _checked(trained, used, overrides)
    if "task" not in contents.info:
        raise AdapterFileError(
            f"{path} names no task: it was saved outside `dcft train`.",
            "Use it in Python: load_adapter(model, path).",
        )
    base = {key: contents.base[key] for key in ("name", "revision") if contents.base[key]}
    info = {name: contents.info[name] for name in Recipe.model_fields if name in contents.info}
    # Whoever runs a base's code must ask for it; who sent the file does not count.
    trust = {"trust_remote_code": False}
    sections = {**info, "model": {**contents.about().model, **trust, **base}}
    trained, used = (recipe_from_mapping(sections, str(path), given) for given in ((), overrides))
    return _checked(trained, used, overrides)


def _with_held_out_rows(recipe: Recipe, adapter: Path) -> Recipe:
    """Return the recipe with the rows that the adapter's run has held out as validation rows.

    Cut from the training file again, they might be others: the file may have changed since.
    """
    file = recipe_beside(adapter)
    if recipe.data.holdout is None or file is None:
        return recipe
    folder = RunFolder(file.parent)
    if not folder.holdout.exists():
        return recipe
    own = ("holdout", "format", "columns", "delimiter", "quoting")
    values = {"validation": str(folder.holdout), **dict.fromkeys(own)}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=values)})


def _checked(trained: Recipe, recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return the recipe if all overrides, which are valid, count for the trained adapter.

    Raises:
        RecipeError: some count in training only, which names them; or rows would have one text,
            and the adapter was trained on pairs, or the other way round.
    """
    keys = [override.partition("=")[0].strip() for override in overrides]
    if idle := [key for key in keys if not counts_when_scoring(key)]:
        raise RecipeError(
            f"{listed(idle)}: used in training only, so it would change nothing here.",
            f"Leave it out. Used here: {keys_when_scoring()}.",
        )
    columns, needed = (FAMILIES[r.task.kind].columns(r.task, r.data)[0] for r in (recipe, trained))
    if len(columns) != len(needed):
        raise RecipeError(
            f"data.text={listed(columns)}: this adapter was trained on "
            f"{'pairs of texts' if len(needed) == 2 else 'single texts'} ({listed(needed)}).",
            f"Name {'two columns' if len(needed) == 2 else 'one column'} in data.text.",
        )
    return recipe
