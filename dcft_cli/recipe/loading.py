"""Reading recipes, by path or by name, and writing them."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from dcft_cli.errors import RecipeError, listed
from dcft_cli.recipe.problems import explain
from dcft_cli.recipe.schema import Recipe
from dcft_cli.recipe.shipped import FOLDER, nearest_recipes, packaged_folder, short_name
from dcft_cli.recipe.source import Source, plain_value, read_source

_MAX_BYTES = 256 << 10  # takes PyYAML a second
_MAX_LISTED = 50


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe read from a file."""

    recipe: Recipe
    name: str
    """Short name for run folders: `rte`, or `roberta-large-rte` from a folder in `recipes/`."""
    path: Path
    """The file, as an absolute path."""


def load_recipe(path_or_name: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read and check a recipe.

    Args:
        path_or_name: a YAML file. If there is no such file, a name that starts with `recipes/`
            means a recipe that comes with this package.
        overrides: `KEY=VALUE`, applied before the recipe is checked: see `Source.override`.

    Raises:
        RecipeError: there is no such recipe, it cannot be read, or it has mistakes; all of them
            are listed, each with file and line.
    """
    path = _find(path_or_name)
    origin = path_or_name if Path(path_or_name).exists() else str(path)
    source = read_source(_read_text(path, origin), origin)
    path = path.absolute()
    return LoadedRecipe(_checked(source, overrides), short_name(path), path)


def recipe_from_mapping(
    data: Mapping[str, object], origin: str, overrides: Sequence[str] = ()
) -> Recipe:
    """Check a recipe given as data, such as the one in an adapter file.

    Args:
        data: sections by name; not changed.
        origin: name of the recipe in messages.

    Raises:
        RecipeError: the recipe or an override has mistakes; all of them are listed.
    """
    return _checked(Source(origin, deepcopy(dict(data))), overrides)


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML with every setting that is not None, except a sweep of it.

    It reads back as an equal one.
    """
    sections = recipe.model_dump(exclude_none=True, exclude={"sweep"})
    text = "\n".join(to_yaml({name: values}) for name, values in sections.items())
    return f"# A dcft recipe with every setting resolved.\n\n{text}"


def to_yaml(values: Mapping[str, object]) -> str:
    """Write plain values in their order, so that a recipe reads back the same."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line, and quotes text that would not read back as text."""


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML also quotes what YAML 1.1 does not read as a string, for other readers.
    quotes = None if plain_value(text) == text and text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)


def _write_list(dumper: _Dumper, entries: list[object]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", entries, flow_style=True)


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(list, _write_list)


def _checked(source: Source, overrides: Sequence[str]) -> Recipe:
    source.override(overrides)
    # A section whose keys are all commented out is null in YAML: it gets its defaults.
    for name in Recipe.model_fields:
        if name in source.values and source.values[name] is None:
            source.values[name] = {}
    problems = list(source.problems)
    try:
        recipe = Recipe.model_validate(source.values)
    except ValidationError as error:
        problems += explain(error, source)
    if problems:
        lines = [f"{place.label}: {message}" for place, message in sorted(problems)]
        hint = "Correct the recipe or the overrides and try again."
        raise RecipeError(listed(lines, _MAX_LISTED, "\n"), hint)
    return recipe


def _find(path_or_name: str) -> Path:
    path = Path(path_or_name).expanduser()
    if path.exists():
        return path
    if path.parts[:1] == (FOLDER,):
        packaged = packaged_folder().joinpath(*path.parts[1:])
        if packaged.is_file():
            return packaged
    raise RecipeError(f"There is no recipe {path_or_name}.", nearest_recipes(path_or_name))


def _read_text(path: Path, origin: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise RecipeError(
                f"{origin} is longer than {_MAX_BYTES:,} bytes, so it is no recipe.",
                "Data goes into files of its own, which the recipe names.",
            )
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise RecipeError(f"{origin} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise RecipeError(f"{origin} is not UTF-8 text.", "Save it as UTF-8.") from None
