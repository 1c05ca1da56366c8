"""A first recipe for a file of data: guessed, checked against the data, written with comments."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from dcft_cli.data.reading import read_file
from dcft_cli.errors import RecipeError, UserError
from dcft_cli.outputs import check_file
from dcft_cli.recipe import Recipe, recipe_from_mapping
from dcft_cli.recipe.adapter import AdapterSection
from dcft_cli.recipe.loading import to_yaml
from dcft_cli.recipe.schema import DataSection, TaskType, TrainingSection
from dcft_cli.recipe.shipped import write_recipe
from dcft_cli.tasks import LoadedTask, load_task
from dcft_cli.tasks.guess import Guess, guess_task

# A smaller share of few rows would score too few of them.
_FEW_ROWS, _SHARE, _SHARE_OF_FEW = 500, 0.1, 0.2
_COMMENT_COLUMN = 32
_COMMENTS = {
    "model.name": "Hub name or local folder",
    "data.holdout": "for scoring; or, instead: validation: FILE",
    "data.max_length": "longest input in tokens; longer ones are truncated",
    "adapter.kernel_size": "4 and 2 train more parameters",
    "training.learning_rate": "the first setting to vary: half, double",
}
# Settings of the training to begin with after these, as comments.
_MORE = {
    "epochs: 5": "unset: 3, or as many as make 150 steps",
    "early_stopping_patience: 3": "evaluations without a better score",
}


@dataclass(frozen=True)
class Draft:
    """A recipe that was written.

    Attributes:
        rows, columns: of the data file.
        loaded: the data as training will see it.
    """

    path: Path
    recipe: Recipe
    guess: Guess
    rows: int
    columns: Sequence[str]
    loaded: LoadedTask


def draft_recipe(
    address: str,
    model: str,
    *,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
    task: TaskType | None = None,
    validation: str | None = None,
    overrides: Sequence[str] = (),
    output: str | None = None,
    overwrite: bool = False,
) -> Draft:
    """Guess a recipe for a data file, check it against the data, and write it.

    Args:
        model: name or folder of the base model.
        text, label, task: columns and type of task, as far as they are known.
        overrides: `KEY=VALUE`, further settings for the recipe.
        output: the recipe's file; None: named after the data file, in the current folder.

    Raises:
        DataError: the data cannot be read, leaves the task unclear, or does not fit it.
        RecipeError: an override is wrong.
        UserError: the recipe exists, and `overwrite` is False; or it cannot be written.
    """
    path = Path(output or f"{Path(address).stem}.yaml").expanduser()
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists.", "Replace it with --overwrite, or set --output FILE.")
    check_file(path)
    keys = {override.partition("=")[0].strip() for override in overrides}
    if "task.name" in keys:
        raise RecipeError(
            "dcft init writes recipes for your own tasks, not for known ones.",
            "Copy the recipe of a known task: dcft recipes list",
        )
    if validation and any(key.startswith(("data.holdout", "data.validation")) for key in keys):
        raise RecipeError(
            "Both --validation and an override name the rows to score.", "Give one of them."
        )
    given: dict[str, Any] = {
        "model": {"name": model},
        "task": {"type": task or "classification"},  # any type, until the data has been seen
        "data": {"train": address}
        | ({"validation": validation} if validation else {})
        | ({"text": list(text)} if text else {})
        | ({"label": label[0] if len(label) == 1 else list(label)} if label else {}),
    }
    recipe = recipe_from_mapping(given, "dcft init", overrides)
    data = recipe.data
    rows = read_file(data.train or address, data, "conll")
    labels = [data.label] if isinstance(data.label, str) else data.label or []
    known = recipe.task.type if task or "task.type" in keys else None
    guess = guess_task(rows, data.text or (), labels, known)
    recipe = _complete(recipe, guess, len(rows.records))
    loaded = load_task(recipe.task, recipe.data)
    write_recipe(path, _text(recipe, guess, loaded, path), overwrite=overwrite)
    return Draft(path, recipe, guess, len(rows.records), rows.columns, loaded)


def _complete(recipe: Recipe, guess: Guess, rows: int) -> Recipe:
    """Return the recipe with what was guessed, and with the settings to begin with."""
    values = recipe.model_dump(exclude_unset=True)
    for section in ("adapter", "training"):
        values.setdefault(section, {})
    values["task"]["type"] = guess.task
    data = values["data"]
    data["text"] = list(guess.text)
    data["label"] = guess.label[0] if len(guess.label) == 1 else list(guess.label)
    if not (data.get("validation") or data.get("holdout")):
        data["holdout"] = {"fraction": _SHARE if rows >= _FEW_ROWS else _SHARE_OF_FEW}
    dcft = recipe.adapter.method == "dcft"
    defaults = {
        **guess.settings,
        "data.max_length": DataSection().max_length,
        **({"adapter.kernel_size": AdapterSection().kernel_size} if dcft else {}),
        "training.learning_rate": TrainingSection().learning_rate,
        "training.batch_size": TrainingSection().batch_size,
    }
    for key, value in defaults.items():
        section, _, name = key.partition(".")
        values[section].setdefault(name, value)
    return recipe_from_mapping(values, "dcft init")


def _text(recipe: Recipe, guess: Guess, loaded: LoadedTask, path: Path) -> str:
    """Return the YAML of a recipe, with comments."""
    comments = {**_COMMENTS, **_task_comments(guess, loaded)}
    lines = [
        f"# Written by dcft init for {_printable(str(recipe.data.train))}.",
        "# Every setting: dcft train --help-settings",
        f"# Run: dcft train {shlex.quote(path.as_posix())}",
    ]
    for section, values in recipe.model_dump(exclude_unset=True).items():
        lines += ["", f"{section}:"]
        for name, value in values.items():
            if name == "text" and len(value) == 1:
                (value,) = value
            first, *more = to_yaml({name: value}).splitlines()
            lines.append(_line(first, comments.get(f"{section}.{name}")))
            lines += [f"  {line}" for line in more]
        if section == "task" and not recipe.task.labels and _are_numbers(loaded.task.labels):
            lines.append(_line("# labels: [NAME, NAME]", "names of the classes, from 0 on"))
    given = recipe.training.model_fields_set
    lines += [
        _line(f"# {setting}", comment)
        for setting, comment in _MORE.items()
        if setting.partition(":")[0] not in given
    ]
    return "\n".join(lines) + "\n"


def _are_numbers(labels: Sequence[str]) -> bool:
    """Return whether classes are called by their numbers from 0 on."""
    return bool(labels) and list(labels) == [str(number) for number in range(len(labels))]


def _line(text: str, comment: str | None) -> str:
    return f"  {text:<{_COMMENT_COLUMN - 4}}  # {_printable(comment)}" if comment else f"  {text}"


def _printable(text: str) -> str:
    """Return names from the data as a comment in YAML can hold them."""
    return shorten("".join(c if c.isprintable() else " " for c in text), 80, placeholder=" ...")


def _task_comments(guess: Guess, loaded: LoadedTask) -> Mapping[str, str]:
    """Return comments on what was guessed."""
    labels = loaded.task.labels
    comments = {
        "data.text": guess.reasons.get("text", ""),
        "data.label": guess.reasons.get("label", ""),
    }
    if labels:
        few = ", ".join(labels[:6]) + (", ..." if len(labels) > 6 else "")
        comments["task.type"] = f"{len(labels)} classes: {few}"
    return comments
