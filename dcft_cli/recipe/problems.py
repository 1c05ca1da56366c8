"""Validation errors of the schema in plain words: key, value, and the nearest valid one."""

import re
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dcft_cli.recipe.schema import sections
from dcft_cli.recipe.source import KeyPath, Place, Source, dotted, show

_MOST = 200  # errors; the time to explain them grows with the square of their number
_WORDS = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping, such as {{name: value}}",
    "model_type": "must be a section, with its keys below it",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:.10g}",
    "too_short": "must have a length of {min_length} or more",
    "too_long": "must have a length of {max_length} or less",
}


def explain(error: ValidationError, source: Source) -> list[tuple[Place, str]]:
    """Return one problem for each invalid value.

    For a key that takes one of several types, pydantic reports an error for each type; these
    become one problem, of the innermost value that is wrong. Only the first errors are explained,
    if there are many.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False)[:_MOST]:
        by_path.setdefault(_path_in(source.values, detail), []).append(detail)
    return [
        (source.place(path), f"{dotted(path) or 'recipe'}: {_describe(path, details)}")
        for path, details in by_path.items()
        if not any(len(p) > len(path) and p[: len(path)] == path for p in by_path)
    ]


def _path_in(values: object, detail: ErrorDetails) -> KeyPath:
    """Return the error's location without the type names that pydantic puts between the keys."""
    path: KeyPath = ()
    for step in detail["loc"]:
        is_key = isinstance(values, dict) and step in values
        if is_key or isinstance(step, int):
            values = values[step]  # type: ignore[index]
        elif detail["type"] != "missing":
            continue
        path = (*path, step)
    return path


def _describe(path: KeyPath, details: list[ErrorDetails]) -> str:
    detail = details[0]
    keys = tuple(map(str, path))
    match detail["type"]:
        case "missing":
            return _missing(keys)
        case "extra_forbidden":
            return f"unknown key (value {show(detail['input'])}); {_nearest_key(keys)}"
        case "value_error":
            return str(detail["ctx"]["error"])
        case "literal_error":
            expected, advice = _choice(detail)
        case _:
            expected, advice = " or ".join(map(_expected, details)), ""
            if detail["type"] == "string_type" and isinstance(detail["input"], int | float):
                advice = f'; if it is a name, put it in quotes: "{show(detail["input"])}"'
    return f"{expected} (value {show(detail['input'])}){advice}"


def _expected(detail: ErrorDetails) -> str:
    if words := _WORDS.get(detail["type"]):
        return words.format(**detail.get("ctx", {}))
    if detail["type"] == "literal_error":  # the last of several types that a key takes
        return _choice(detail)[0].removeprefix("must be ")
    return detail["msg"]


def _choice(detail: ErrorDetails) -> tuple[str, str]:
    choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
    near = get_close_matches(str(detail["input"]), choices, n=1)
    expected = "must be one of " if len(choices) > 1 else "must be "
    return expected + ", ".join(choices), f"; did you mean {near[0]}?" if near else ""


def _missing(path: tuple[str, ...]) -> str:
    if path in _SECTIONS:
        return f"missing; a recipe needs this section: {_SECTIONS[path].__doc__}"
    section = path[:-1]
    field = _SECTIONS[section].model_fields[path[-1]]
    return f"missing; section {dotted(section)} needs this key: {field.description}"


def _nearest_key(path: tuple[str, ...]) -> str:
    """Return advice on an unknown key: the nearest ones, or all valid ones."""
    if candidates := nearest_keys(path):
        return f"did you mean {' or '.join(candidates)}?"
    section = path[:-1]
    own = ", ".join(_SECTIONS[section].model_fields)
    return f"{'section ' if section else ''}{dotted(section) or 'a recipe'} takes {own}"


def nearest_keys(path: tuple[str, ...], likeness: float = 0.7) -> list[str]:
    """Return keys that an unknown one may stand for: dotted, or a name in the same section.

    They are those of the same name elsewhere, else one that is spelled alike, or that has another
    name in the scripts of transformers.

    Args:
        likeness: of the spelling, from 0 to 1; see `difflib.get_close_matches`.
    """
    section, key = path[:-1], path[-1]
    if key in _OTHER_NAMES:
        return [_OTHER_NAMES[key]]
    own = list(_SECTIONS[section].model_fields) if section in _SECTIONS else []
    paths = [(*section, key) for section, model in _SECTIONS.items() for key in model.model_fields]
    names = [path[-1] for path in paths]
    return (
        [dotted(path) for path in paths if path[-1] == key]
        or _alike(key, own, likeness)
        or [dotted(path) for path in paths if path[-1] in _alike(key, names, likeness)]
    )


def _alike(key: str, names: list[str], likeness: float) -> list[str]:
    """Return the name spelled most like `key`, or the names with `key` as their initials."""
    initials = [n for n in names if "_" in n and key == "".join(word[0] for word in n.split("_"))]
    return get_close_matches(key, names, n=1, cutoff=likeness) or initials


# Names in the training scripts of transformers.
_OTHER_NAMES = {
    "model_name_or_path": "model.name",
    "task_name": "task.name",
    "dataset_name": "data.hub",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "max_seq_length": "data.max_length",
    "num_train_epochs": "training.epochs",
    "per_device_train_batch_size": "training.batch_size",
    "per_device_eval_batch_size": "training.eval_batch_size",
    "lr_scheduler_type": "training.scheduler",
    "output_dir": "training.output",
}

_SECTIONS = dict(sections())
