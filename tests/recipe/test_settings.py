"""What is said about each key, in the terminal and in editors."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dcft_cli.recipe.settings import SCHEMA_FILE, json_schema, schema_text, settings

RECIPES = Path(__file__).parents[2] / "recipes"


def resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, or the first of several alternatives that is one."""
    for candidate in (schema, *schema.get("anyOf", ())):
        if "$ref" in candidate:
            return dict(root["$defs"][candidate["$ref"].rpartition("/")[2]])
    return schema


def lacking(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """Return the keys of a value that its schema does not have."""
    properties = resolved(schema, root).get("properties")
    if not isinstance(value, dict) or properties is None:
        return []
    return [key for key in value if key not in properties] + [
        f"{key}.{name}"
        for key, inner in value.items()
        if key in properties
        for name in lacking(inner, properties[key], root)
    ]


def test_every_key_has_a_description() -> None:
    for setting in settings():
        assert setting.description[-1:] == ".", setting.key
        assert "None" not in setting.description and "\n" not in setting.description
        assert len(setting.description) < 200


def test_types_and_defaults_are_given_in_words() -> None:
    found = {key: (kind, default) for key, kind, default, _ in settings()}
    assert found["model.name"] == ("text", "required")
    assert found["training.learning_rate"] == ("number", "0.005")
    assert found["training.fit_head"] == ("auto, off", "auto")
    assert found["training.num_workers"] == ("whole number or auto", "auto")
    assert found["adapter.targets"] == ("list of texts", "[Q, K, V, O, FFN]")
    assert found["data.validation"] == ("text or mapping", "")
    assert found["data.holdout"] == ("section", "")
    assert found["data.holdout.fraction"] == ("number", "required")


def test_the_schema_in_the_repository_is_the_one_that_is_printed() -> None:
    written = (RECIPES / SCHEMA_FILE).read_text("utf-8")
    # Not as text: some versions of pydantic write 0, others 0.0.
    assert json.loads(written) == json.loads(schema_text()), (
        "dcft schema > recipes/recipe.schema.json"
    )


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in RECIPES.rglob("*.yaml")])
def test_the_schema_knows_the_keys_of_recipes(path: Path) -> None:
    schema = json_schema()
    recipe = yaml.safe_load(path.read_text("utf-8"))
    assert lacking(recipe, schema, schema) == []
    assert lacking({**recipe, "data": {"txt": 1}}, schema, schema) == ["data.txt"]


def test_the_schema_allows_what_recipes_allow() -> None:
    schema = json_schema()
    data = schema["$defs"]["DataSection"]["properties"]
    assert {"type": "string"} in data["text"]["anyOf"], "one column needs no brackets"
    assert {"type": "null"} in schema["properties"]["training"]["anyOf"], "a section without keys"
    assert schema["required"] == ["model", "task"]
    descriptions = json.dumps(schema).count('"description"')
    assert descriptions >= len(list(settings()))
