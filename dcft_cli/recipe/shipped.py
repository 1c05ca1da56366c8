"""The recipes that come with the package: found, described and copied."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from dcft_cli.atomic import atomic_path
from dcft_cli.errors import RecipeError, UserError
from dcft_cli.outputs import refuse_address
from dcft_cli.recipe.settings import SCHEMA_FILE, schema_text

FOLDER = "recipes"

_EDITOR_LINE = re.compile(r"# yaml-language-server: \$schema=.*\n")
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}\n"
"""First line of a recipe, by which editors find the schema that lies next to it."""


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that comes with the package."""

    path: Path

    @property
    def name(self) -> str:
        """As `dcft train` takes it: `recipes/roberta-large/rte.yaml`."""
        return f"{FOLDER}/{self.path.relative_to(packaged_folder()).as_posix()}"

    @property
    def text(self) -> str:
        """The YAML text."""
        return self.path.read_text("utf-8")

    @property
    def summary(self) -> str:
        """The first sentence of its first comment."""
        comment = re.match(r"(# .*\n)+", _EDITOR_LINE.sub("", self.text))
        words = comment[0].replace("\n# ", " ").removeprefix("# ") if comment else ""
        return re.split(r"(?<=[.?])\s", words, maxsplit=1)[0].strip()


def shipped_recipes(folder: str = FOLDER) -> Iterator[ShippedRecipe]:
    """Yield the recipes that come with the package, those for the default model first.

    Args:
        folder: yield only those in it and below it; as `find_folder` returns it.
    """
    files = packaged_folder().parent.joinpath(folder).rglob("*.yaml")
    for path in sorted(files, key=lambda path: (len(path.parts), path)):
        yield ShippedRecipe(path)


def find_folder(name: str) -> str:
    """Return the full name of a folder of recipes: `recipes/paper` for `paper`.

    Raises:
        RecipeError: the package has no such folder; the hint lists those that there are.
    """
    parts = PurePosixPath(name).parts
    wanted = (FOLDER, *(parts[1:] if parts[:1] == (FOLDER,) else parts))
    folders = {PurePosixPath(recipe.name).parts[:-1] for recipe in shipped_recipes()}
    if not any(folder[: len(wanted)] == wanted for folder in folders):
        known = ", ".join(sorted({folder[1] for folder in folders if folder[1:]}))
        raise RecipeError(f"No folder of recipes is called {name}.", f"There are: {known}")
    return "/".join(wanted)


def find_shipped(name: str) -> ShippedRecipe:
    """Return the recipe called `name`: `rte`, `roberta-large/rte` or `recipes/rte.yaml`.

    Raises:
        RecipeError: there is no such recipe; the hint lists the nearest.
    """
    wanted = f"{FOLDER}/{_stem(name)}.yaml"
    for recipe in shipped_recipes():
        if recipe.name == wanted:
            return recipe
    raise RecipeError(f"No recipe that comes with dcft is called {name}.", nearest_recipes(name))


def copy_shipped(name: str, destination: str, *, overwrite: bool) -> Path:
    """Copy a recipe to a file, or into a folder, with the schema for editors next to it.

    Raises:
        RecipeError: there is no such recipe.
        UserError: the file exists, and `overwrite` is False; it cannot be written, or is an
            address.
    """
    recipe = find_shipped(name)
    refuse_address(destination, "file")
    path = Path(destination).expanduser()
    if path.is_dir() or path.suffix.lower() not in (".yaml", ".yml"):
        path = path / f"{short_name(recipe.path)}.yaml"
    text = _EDITOR_LINE.sub("", recipe.text).replace(recipe.name, shlex.quote(path.as_posix()))
    write_recipe(path, text, overwrite=overwrite)
    return path


def write_recipe(path: Path, text: str, *, overwrite: bool) -> None:
    """Write the text of a recipe, with the line for editors, and the schema next to it.

    Raises:
        UserError: the file exists, and `overwrite` is False; it cannot be written.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists.", "Replace it with --overwrite, or name another file.")
    try:
        for file, content in ((path.with_name(SCHEMA_FILE), schema_text()),
                              (path, EDITOR_LINE + text)):  # fmt: skip
            with atomic_path(file) as temporary:
                temporary.write_text(content, "utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}.", "Choose another folder."
        ) from error


def nearest_recipes(name: str) -> str:
    """Return a hint: the recipes that are called almost like `name`, else how to get one."""
    path = Path(name).expanduser()
    local = [file.as_posix() for file in path.parent.glob("*.y*ml")]
    names = {_stem(file): file for file in (*(r.name for r in shipped_recipes()), *local)}
    near = get_close_matches(_stem(name), names, n=3) or get_close_matches(path.stem, names, n=3)
    if near:
        return f"The nearest are: {', '.join(names[name] for name in near)}"
    return (
        "List those that come with dcft: dcft recipes list (recipes/quickstart.yaml needs no"
        " network). Write one for your own data: dcft init DATA"
    )


def packaged_folder() -> Path:
    """Return the folder of the package's recipes: in the package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / FOLDER
    return inside if inside.is_dir() else package.with_name(FOLDER)


def short_name(path: Path) -> str:
    """Return a short name for run folders: `rte`, or `roberta-large-rte` from `recipes/`."""
    parts = path.with_suffix("").parts
    if FOLDER in parts[:-1]:
        return "-".join(parts[len(parts) - parts[::-1].index(FOLDER) :])
    return parts[-1]


def _stem(name: str) -> str:
    """Return the name of a recipe without `recipes/` and the suffix."""
    return Path(name).with_suffix("").as_posix().removeprefix(f"{FOLDER}/")
