"""Every key of a recipe with its type, default and description, and the JSON Schema of recipes."""

import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from dcft_cli.errors import listed
from dcft_cli.recipe.schema import Recipe, sections

SCHEMA_FILE = "recipe.schema.json"
"""File name of the JSON Schema; it lies next to the recipes that refer to it."""

# Of the section `training`, what counts when a trained adapter scores or predicts.
_WHEN_SCORING = frozenset(
    ("device", "precision", "batch_size", "eval_batch_size", "acceleration", "num_workers")
)

_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


class Setting(NamedTuple):
    """A key below the sections of a recipe.

    Attributes:
        key: dotted, such as `training.learning_rate`.
        kind: its type in words, or its choices.
        default: as a recipe would write it; "" if it is unset, "required" if there is none.
        description: one or two sentences.
    """

    key: str
    kind: str
    default: str
    description: str


def settings() -> Iterator[Setting]:
    """Yield all settings, section by section, in the schema's order."""
    for path, section in sections():
        if path:
            for name, field in section.model_fields.items():
                description = " ".join((field.description or "").split())
                key = ".".join((*path, name))
                yield Setting(key, _kind(field.annotation), _default(field), description)


def counts_when_scoring(key: str) -> bool:
    """Return whether a key, or section, means something to `dcft eval` and `dcft predict`."""
    section, _, name = key.partition(".")
    if section == "training":
        return name in _WHEN_SCORING
    return section not in ("adapter", "head", "sweep") and not name.startswith("holdout")


def keys_when_scoring() -> str:
    """Return which keys `counts_when_scoring` accepts, in words."""
    keys = sorted(f"training.{name}" for name in _WHEN_SCORING)
    return listed(["model.*", "task.*", "data.*", *keys])


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes, for editors."""
    schema = Recipe.model_json_schema()
    for definition in (schema, *schema["$defs"].values()):
        for name, key in definition.get("properties", {}).items():
            key.pop("title", None)  # the name again
            if "description" in key:
                key["description"] = " ".join(key["description"].split())
            if definition is schema and name not in schema["required"]:
                # A section whose keys are all commented out is null in YAML.
                del key["default"]
                if "$ref" in key:
                    key["anyOf"] = [{"$ref": key.pop("$ref")}, {"type": "null"}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def schema_text() -> str:
    """Return the JSON Schema of recipes as it is written to files."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _kind(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_kind(argument) for argument in arguments if argument is not NoneType)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is list:
        return f"list of {_kind(arguments[0])}s"
    if origin is dict:
        return "mapping"
    if origin is not None:  # Annotated
        return _kind(arguments[0])
    return _TYPES.get(annotation, "section")


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required():
        return "required"
    if value is None:
        return ""
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
